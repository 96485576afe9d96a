"""Live microphones of visitors: chunks of audio in, HTML for the page out.

Audio stays in memory, for at most the length of a window.
"""

import base64
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from emoser.demo.rendering import render_live
from emoser.results.segments import Segment, TimelineWindow
from emoser.serve.live import SAMPLING_RATES, LiveSession, LiveUpdate, check_rate

if TYPE_CHECKING:
    from emoser.classifier import EmotionClassifier

NUM_SHOWN = 20  # finished segments
HOP_SECONDS = 0.5  # two updates a second
IDLE_SECONDS = 60.0  # after which a session is dropped: its page was closed
MAX_SESSIONS = 100
MAX_SECONDS = 15.0  # of audio in one message; the page keeps 10 s for a busy server
MAX_NAME = 200  # letters of the name of a session or a model
MAX_LETTERS = 4 * -(-2 * round(MAX_SECONDS) * SAMPLING_RATES[1] // 3)  # of samples in base64


class LiveChunk(NamedTuple):
    """A message of the page: the audio since the previous message.

    Attributes:
        session: Name of the live session, chosen by the page.
        model: Name of the model when the session began.
        sampling_rate: In Hz.
        samples: (T,), 16 bit.
        lost: Number of samples before them that the page had to drop.
        last: Whether the microphone is off now.
    """

    session: str
    model: str
    sampling_rate: int
    samples: npt.NDArray[np.int16]
    lost: int
    last: bool


def read_chunk(message: Any) -> LiveChunk:
    """Read a JSON message of the page, with its samples in base64.

    Raises:
        ValueError: If it is invalid, or a number is out of range.

    Example:
        >>> message = {"session": "a", "model": "emoser-tiny", "samplingRate": 8000}
        >>> read_chunk({**message, "samples": "AQA=", "lost": 0, "last": False}).samples.tolist()
        [1]
    """
    try:
        text, session, model = (message[key] for key in ("samples", "session", "model"))
        if not all(isinstance(item, str) for item in (text, session, model)):
            raise TypeError("a name or the samples are no text")
        if len(text) > MAX_LETTERS or len(session) > MAX_NAME or len(model) > MAX_NAME:
            raise ValueError("it is too long")
        samples = np.frombuffer(base64.b64decode(text, validate=True), "<i2")
        rate, lost = int(message["samplingRate"]), int(message["lost"])
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"the page sent an invalid message ({error}); reload it") from error
    check_rate(rate)
    if not session or not model:
        raise ValueError("the session or the model has no name; choose a model")
    if len(samples) > MAX_SECONDS * rate or lost < 0:
        raise ValueError(f"a message must hold 0 to {MAX_SECONDS:g} s of audio; reload the page")
    return LiveChunk(session, model, rate, samples, lost, last=bool(message.get("last")))


class ShownSession:
    """A microphone that is on, and what the page shows of it."""

    def __init__(self, classifier: "EmotionClassifier", *, sampling_rate: int) -> None:
        self.last_used = 0.0
        self._session = LiveSession(
            classifier, sampling_rate=sampling_rate, hop_seconds=HOP_SECONDS
        )
        self._segments: deque[Segment] = deque(maxlen=NUM_SHOWN)
        self._latest: TimelineWindow | None = None

    def push(self, chunk: LiveChunk) -> str:
        """Analyse a chunk, preceded by silence for the audio that was lost."""
        self.last_used = time.monotonic()
        update = self._keep(self._session.push(chunk.samples, lost=chunk.lost))
        if chunk.last:
            update = self._keep(self._session.finish())
        return render_live(self._latest, tuple(self._segments), update.seconds)

    def _keep(self, update: LiveUpdate) -> LiveUpdate:
        self._segments.extend(update.segments)
        self._latest = update.windows[-1] if update.windows else self._latest
        return update


class LiveSessions:
    """The live sessions of all visitors.

    Args:
        open_classifier: Returns the classifier for the name of a model.
    """

    def __init__(self, open_classifier: Callable[[str], "EmotionClassifier"]) -> None:
        self._open_classifier = open_classifier
        self._sessions: OrderedDict[str, ShownSession] = OrderedDict()  # least recently used first
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._sessions)

    def push(self, chunk: LiveChunk) -> str:
        """Analyse a chunk; the first one opens its session, the last one closes it."""
        with self._lock:
            session = self._sessions.pop(chunk.session, None)
            if session is None:
                classifier = self._open_classifier(chunk.model)
                session = ShownSession(classifier, sampling_rate=chunk.sampling_rate)
            page = session.push(chunk)
            if not chunk.last:
                self._sessions[chunk.session] = session
                self._drop_idle()
            return page

    def _drop_idle(self) -> None:
        now = time.monotonic()
        while self._sessions:
            first = next(iter(self._sessions.values()))
            if len(self._sessions) <= MAX_SESSIONS and now - first.last_used < IDLE_SECONDS:
                return
            self._sessions.popitem(last=False)
