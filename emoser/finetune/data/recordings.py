"""The audio of utterances: float32 samples at the model's rate, equal to those in `predict`.

`Recordings` keeps decoded clips in memory for training; a file is read once for all of its pieces.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from emoser.audio import SAMPLING_RATE
from emoser.errors import AudioError, EmoserError
from emoser.finetune.data.acoustics import describe_clip
from emoser.finetune.data.utterance import Utterance
from emoser.finetune.progress import Progress
from emoser.inference.batching import InferenceOptions
from emoser.inference.pieces import Piece, PieceMeter, read_pieces
from emoser.inference.windows import WindowCutter, window_weights
from emoser.results.segments import SILENCE
from emoser.text import counted, shorten

SCALE = 32768.0  # of 16-bit integers

Samples: TypeAlias = NDArray[np.float32]
Key: TypeAlias = tuple[str, float | None, float | None]


class Clip:
    """A decoded utterance, stored as 16-bit integers if these represent it exactly."""

    def __init__(self, samples: Samples, rate: int) -> None:
        self._rate = rate
        integers = np.rint(np.clip(samples, -1.0, 1.0 - 1.0 / SCALE) * SCALE).astype(np.int16)
        self.stored: NDArray[np.int16] | Samples = integers
        if not np.array_equal(self.samples, samples):
            self.stored = samples

    @property
    def samples(self) -> Samples:
        """The samples, (T,), float32."""
        if self.stored.dtype == np.int16:
            return self.stored.astype(np.float32) / np.float32(SCALE)
        return self.stored.astype(np.float32, copy=False)

    def is_silent(self) -> bool:
        """Whether nobody speaks, by the rule of `predict`."""
        meter = PieceMeter(self._rate)
        meter.update(self.samples)
        return SILENCE in meter.flags()

    @cached_property
    def statistics(self) -> NDArray[np.float64]:
        """Acoustic statistics, see `describe_clip`."""
        return describe_clip(self.samples, sampling_rate=self._rate)


class Recordings:
    """Decoded utterances: `recordings[i]` holds the samples of utterance i.

    The same piece of the same file is decoded and kept once, also across `select`.

    Args:
        utterances: The utterances to decode.
        sampling_rate: Rate of the samples in Hz.

    Raises:
        AudioError: Naming all utterances that cannot be read.
    """

    def __init__(
        self,
        utterances: Sequence[Utterance] = (),
        *,
        sampling_rate: int = SAMPLING_RATE,
    ) -> None:
        self.sampling_rate = sampling_rate
        self._held: dict[Key, Clip] = {}
        self._clips = self._decode(utterances)

    def select(self, utterances: Sequence[Utterance]) -> "Recordings":
        """The recordings of other utterances; those already decoded are reused.

        Raises:
            AudioError: If a file cannot be decoded, or has no samples in a piece.
        """
        selected = Recordings(sampling_rate=self.sampling_rate)
        selected._held = self._held
        selected._clips = selected._decode(utterances)
        return selected

    def __len__(self) -> int:
        return len(self._clips)

    def __getitem__(self, index: int) -> Samples:
        return self._clips[index].samples

    def __iter__(self) -> Iterator[Samples]:
        return (clip.samples for clip in self._clips)

    def find_silent(self) -> NDArray[np.bool_]:
        """Whether nobody speaks in each clip, by the rule of `predict`, (N,)."""
        return np.array([clip.is_silent() for clip in self._clips], dtype=bool)

    def describe(self) -> NDArray[np.float64]:
        """Acoustic statistics of every clip, (N, D)."""
        return np.stack([clip.statistics for clip in self._clips])

    @property
    def fingerprint(self) -> str:
        """A hash of all samples."""
        digest = hashlib.sha256()
        for clip in self._clips:
            digest.update(len(clip.stored).to_bytes(8, "little"))
            digest.update(clip.stored.tobytes())
        return digest.hexdigest()

    @property
    def num_samples(self) -> list[int]:
        """Length of every clip."""
        return [len(clip.stored) for clip in self._clips]

    def read(
        self, utterances: Sequence[Utterance], *, skip_unreadable: bool = False
    ) -> tuple[list[Utterance], list[str]]:
        """Decode utterances; the readable ones, and a remark on those that are not.

        Args:
            utterances: The utterances, of files that may be missing.
            skip_unreadable: Whether to leave out those that cannot be read.

        Raises:
            AudioError: Naming all that cannot be read, unless they are left out.
        """
        faults = self._load(utterances)
        if not skip_unreadable:
            refuse_unreadable(list(faults.values()), len(utterances))
        readable = [item for item in utterances if _key(item) not in faults]
        return readable, note_unreadable(list(faults.values()))

    def _decode(self, utterances: Sequence[Utterance]) -> list[Clip]:
        refuse_unreadable(list(self._load(utterances).values()), len(utterances))
        return [self._held[_key(item)] for item in utterances]

    def _load(self, utterances: Sequence[Utterance]) -> dict[Key, EmoserError]:
        """Decode what is not held yet; the errors of what cannot be read."""
        absent: dict[str, list[Utterance]] = defaultdict(list)
        for item in dict.fromkeys(utterances):
            if _key(item) not in self._held:
                absent[item.path].append(item)

        faults: dict[Key, EmoserError] = {}
        with ThreadPoolExecutor(max_workers=2) as pool:
            decoded = pool.map(partial(_read_clips, self.sampling_rate), absent.values())
            for clips in Progress(decoded, "decoded files", total=len(absent)):
                for key, found in clips.items():
                    if isinstance(found, EmoserError):
                        faults[key] = found
                    else:
                        self._held[key] = found
        return faults


class Windows:
    """Recordings cut into the same windows as in `predict`.

    `windows[i]` holds the samples of window i; the windows of a clip are consecutive.

    Args:
        recordings: The clips.
        window: Longest window in samples; None for whole clips.

    Attributes:
        window: Longest window in samples; None for whole clips.
        sampling_rate: Rate of the samples in Hz.
        pieces: Indices of the windows of each clip.
        weights: The share of its clip that each window stands for, (M,).
    """

    def __init__(self, recordings: Recordings, window: int | None) -> None:
        self._recordings = recordings
        self.window = window
        self.sampling_rate = recordings.sampling_rate
        self._places: list[tuple[int, slice]] = []
        self.pieces: list[range] = []
        weights: list[float] = []
        for index, size in enumerate(recordings.num_samples):
            cut = [slice(0, size)] if window is None else _cut(size, window)
            first = len(self._places)
            self._places += [(index, piece) for piece in cut]
            self.pieces.append(range(first, len(self._places)))
            weights += window_weights(cut).tolist()
        self.weights = np.array(weights)

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> Samples:
        clip, piece = self._places[index]
        return self._recordings[clip][piece]

    def draw(self, clips: Sequence[int], generator: np.random.Generator | None) -> list[int]:
        """The index of a random window of each clip; of the first one without a generator."""
        drawn = []
        for pieces in (self.pieces[clip] for clip in clips):
            place = 0 if generator is None or len(pieces) == 1 else generator.integers(len(pieces))
            drawn.append(pieces[int(place)])
        return drawn

    @property
    def num_samples(self) -> list[int]:
        """Length of every window."""
        return [piece.stop - piece.start for _, piece in self._places]

    @property
    def fingerprint(self) -> str:
        """A hash of all samples and window positions."""
        whole = self._recordings.fingerprint
        if len(self) == len(self._recordings):
            return whole
        return hashlib.sha256(f"{whole} {self._places}".encode()).hexdigest()


def find_unreadable(utterances: Sequence[Utterance]) -> list[EmoserError]:
    """The errors of all utterances that cannot be read; each file is decoded once."""
    return [
        part.end.error
        for members in group_by_file(utterances).values()
        for part in read_pieces(
            utterances[members[0]].path, _pieces(utterances, members), InferenceOptions(window=1)
        )
        if part.end is not None and part.end.error is not None
    ]


def group_by_file(utterances: Sequence[Utterance]) -> dict[str, list[int]]:
    """Indices of the utterances of each file, in their order."""
    places: dict[str, list[int]] = defaultdict(list)
    for place, item in enumerate(utterances):
        places[item.path].append(place)
    return places


def refuse_unreadable(faults: Sequence[EmoserError], total: int) -> None:
    """Raise an `AudioError` that names all recordings that cannot be read, if there are any."""
    if faults:
        raise AudioError(
            f"{len(faults)} of {counted(total, 'recording')} cannot be read: "
            f"{describe_faults(faults)}; repair them, or leave them out with "
            "skip_unreadable=True (--skip-unreadable)"
        )


def note_unreadable(faults: Sequence[EmoserError]) -> list[str]:
    """A remark for the report on recordings that were left out, or nothing."""
    left_out = f"{counted(len(faults), 'recording')} left out, which cannot be read"
    return [f"{left_out}: {describe_faults(faults)}"] if faults else []


def describe_faults(faults: Sequence[EmoserError]) -> str:
    """What is wrong with some recordings, without the advice in each message."""
    return shorten([str(fault).rpartition("; ")[0] or str(fault) for fault in faults])


def _key(utterance: Utterance) -> Key:
    return utterance.path, utterance.start, utterance.end


def _read_clips(rate: int, utterances: Sequence[Utterance]) -> dict[Key, Clip | EmoserError]:
    """The clips of one file, which is decoded once, or why there is none."""
    clips: dict[Key, Clip | EmoserError] = {}
    parts: dict[int, list[Samples]] = defaultdict(list)
    pieces = _pieces(utterances, range(len(utterances)))
    options = InferenceOptions(window=1, model_rate=rate)
    for piece, samples, end in read_pieces(utterances[0].path, pieces, options):
        parts[piece].append(samples)
        if end is not None:
            joined = parts.pop(piece)
            clips[_key(utterances[piece])] = end.error or Clip(np.concatenate(joined), rate)
    return clips


def _pieces(utterances: Sequence[Utterance], places: Iterable[int]) -> list[Piece]:
    return [Piece(utterances[place].start, utterances[place].end) for place in places]


def _cut(size: int, window: int) -> list[slice]:
    cutter, clip = WindowCutter(window=window, hop=window), np.zeros(size, np.float32)
    return [piece for piece, _ in (*cutter.push(clip), *cutter.flush())]
