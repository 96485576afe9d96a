"""Visitors' microphones, message by message, as what the page shows.

Brings together streams and their HTML. Sound stays in memory, and no longer than a window. A
voice goes by the name that its page gave it. Knows nothing of Gradio.
"""

import base64
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from emoser.demo.rendering import show_live
from emoser.results.prediction import Prediction
from emoser.results.segments import Segment
from emoser.streaming import EmotionStream

if TYPE_CHECKING:
    from emoser.classifier import EmotionClassifier

NUM_SHOWN = 20  # segments that have ended
HOP_SECONDS = 0.5  # a page that answers every second feels dead
IDLE_SECONDS = 60.0  # after which a voice is taken for one whose page was closed
MAX_VOICES = 100
MAX_SECONDS = 60.0  # of sound, or of lost sound, in one message
RATES = (8_000, 192_000)  # Hz

OpenClassifier: TypeAlias = Callable[[str], "EmotionClassifier"]


@dataclass(frozen=True)
class Spoken:
    """A message of a page: sound since the one before.

    Attributes:
        voice: The name that the page gave to the voice.
        model: What it shall be heard by, as chosen when it began.
        rate: In Hz.
        samples: (n,), 16 bit.
        lost: Samples before them that the page had to drop.
        last: Whether the microphone is off now.
    """

    voice: str
    model: str
    rate: int
    samples: npt.NDArray[np.int16]
    lost: int = 0
    last: bool = False

    def __post_init__(self) -> None:
        """Refuse what no page of ours sends.

        Raises:
            ValueError: If the rate, the amount of sound or the names are out of range.
        """
        most = MAX_SECONDS * self.rate
        if not RATES[0] <= self.rate <= RATES[1]:
            raise ValueError(f"the microphone has {self.rate} Hz; {RATES[0]} to {RATES[1]} go")
        if not self.voice or not self.model:
            raise ValueError("a voice and a model must be named; choose a model")
        if len(self.samples) > most or not 0 <= self.lost:
            raise ValueError(f"more than {MAX_SECONDS:g} s came at once; load the page again")

    @classmethod
    def from_message(cls, message: Any) -> "Spoken":
        """What the page sent as JSON, its samples as base64.

        Raises:
            ValueError: If it is none.

        Example:
            >>> message = {"voice": "a", "model": "emoser-tiny", "rate": 8000, "samples": "AQA="}
            >>> Spoken.from_message({**message, "lost": 0, "last": False}).samples.tolist()
            [1]
        """
        try:
            samples = np.frombuffer(base64.b64decode(message["samples"], validate=True), "<i2")
            rate, lost = int(message["rate"]), int(message["lost"])
            voice, model = str(message["voice"]), str(message["model"])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"the page sent what is no sound ({error}); load it again") from error
        return cls(voice, model, rate, samples, lost, last=bool(message.get("last")))


class LiveVoice:
    """A voice that is still speaking.

    Args:
        classifier: What hears.
        sampling_rate: Rate in Hz of the chunks.

    Example:
        >>> from emoser.classifier import EmotionClassifier
        >>> voice = LiveVoice(EmotionClassifier.from_pretrained(), sampling_rate=16_000)
        >>> "0:02.00 heard" in voice.push(np.zeros(32_000, np.float32))
        True
    """

    def __init__(self, classifier: "EmotionClassifier", *, sampling_rate: int) -> None:
        self.heard_at = time.monotonic()
        self._model = classifier.info.name
        self._stream = EmotionStream(
            classifier, sampling_rate=sampling_rate, hop_seconds=HOP_SECONDS
        )
        self._segments: deque[Segment] = deque(maxlen=NUM_SHOWN)

    def push(self, samples: npt.NDArray[Any]) -> str:
        """Hear what comes next, (n,); what the page shows."""
        self.heard_at = time.monotonic()
        self._segments.extend(self._stream.push(samples))
        return self._show()

    def finish(self) -> str:
        """The microphone is off; what the page shows from now on."""
        self._segments.extend(self._stream.flush())
        return self._show()

    def _show(self) -> str:
        latest, live = self._stream.latest, None
        if latest is not None:
            label = max(latest.scores, key=latest.scores.__getitem__) if latest.scores else None
            live = Prediction(
                label=label,
                score=None if label is None else latest.scores[label],
                scores=latest.scores,
                dimensions=latest.dimensions,
                duration=latest.end - latest.start,
                model=self._model,
            )
        return show_live(live, tuple(self._segments), self._stream.seconds)


class Voices:
    """The voices of all visitors.

    Args:
        open_classifier: Gives the model of a name.
    """

    def __init__(self, open_classifier: OpenClassifier) -> None:
        self._open_classifier = open_classifier
        self._voices: OrderedDict[str, LiveVoice] = OrderedDict()  # heard last at the end
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._voices)

    def hear(self, spoken: Spoken) -> str:
        """Hear what a voice says next, the last of it included; what the page shows.

        Raises:
            EmoserError: If the model does not open.
        """
        with self._lock:
            voice = self._voices.pop(spoken.voice, None)
            if voice is None:
                classifier = self._open_classifier(spoken.model)
                voice = LiveVoice(classifier, sampling_rate=spoken.rate)
            silence = np.zeros(min(spoken.lost, round(MAX_SECONDS * spoken.rate)), np.int16)
            page = voice.push(np.concatenate([silence, spoken.samples]))
            if spoken.last:
                return voice.finish()
            self._voices[spoken.voice] = voice
            self._drop_idle()
            return page

    def _drop_idle(self) -> None:
        now = time.monotonic()
        while self._voices:
            first = next(iter(self._voices.values()))
            if len(self._voices) <= MAX_VOICES and now - first.heard_at < IDLE_SECONDS:
                return
            self._voices.popitem(last=False)
