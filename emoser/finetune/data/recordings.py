"""The audio of utterances, decoded once and kept in memory as 16-bit integers.

Gives float32 samples at 16 kHz by index, and acoustic statistics. What somebody still holds is
not decoded again: several trainings on the same files share it. Knows nothing of labels or models.
"""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import TypeAlias
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from emoser.audio import load_audio
from emoser.errors import AudioError
from emoser.finetune.data.acoustics import describe_clip
from emoser.finetune.data.utterance import Utterance

SAMPLING_RATE = 16_000
SCALE = 32768.0

Key: TypeAlias = tuple[str, float | None, float | None, int, int]


class Clip:
    """A decoded utterance: 16-bit samples (T,), and its statistics once they are asked for."""

    def __init__(self, integers: NDArray[np.int16]) -> None:
        self.integers = integers

    @property
    def samples(self) -> NDArray[np.float32]:
        """What the model hears, (T,)."""
        return self.integers.astype(np.float32) / np.float32(SCALE)

    @cached_property
    def statistics(self) -> NDArray[np.float64]:
        """What `describe_clip` says of it."""
        return describe_clip(self.samples)


_held: WeakValueDictionary[Key, Clip] = WeakValueDictionary()


class Recordings:
    """Decoded utterances: `recordings[i]` are the samples of utterance i."""

    def __init__(self, utterances: Sequence[Utterance], *, progress: bool = False) -> None:
        """Decode everything.

        Args:
            utterances: What to decode.
            progress: Whether to show a bar.

        Raises:
            AudioError: If a file cannot be decoded or a piece lies outside of it.
        """
        with ThreadPoolExecutor(max_workers=2) as pool:
            decoded = pool.map(_decode, utterances)
            bar = tqdm(decoded, "decoding", len(utterances), disable=not progress, leave=False)
            self._clips: list[Clip] = list(bar)

    def __len__(self) -> int:
        return len(self._clips)

    def __getitem__(self, index: int) -> NDArray[np.float32]:
        return self._clips[index].samples

    def describe(self) -> NDArray[np.float64]:
        """Acoustic statistics of every clip, (N, D)."""
        return np.stack([clip.statistics for clip in self._clips])

    @property
    def fingerprint(self) -> str:
        """A name for exactly these samples."""
        digest = hashlib.sha256()
        for clip in self._clips:
            digest.update(len(clip.integers).to_bytes(8, "little"))
            digest.update(clip.integers.tobytes())
        return digest.hexdigest()

    @property
    def num_samples(self) -> list[int]:
        """Length of every clip."""
        return [len(clip.integers) for clip in self._clips]


def _decode(utterance: Utterance) -> Clip:
    try:
        found = Path(utterance.path).stat()
    except OSError:  # `load_audio` says what is wrong with it
        return Clip(_read(utterance))
    key = (utterance.path, utterance.start, utterance.end, found.st_mtime_ns, found.st_size)
    clip = _held.get(key)
    if clip is None:
        clip = _held[key] = Clip(_read(utterance))
    return clip


def _read(utterance: Utterance) -> NDArray[np.int16]:
    samples = load_audio(utterance.path)
    start = round((utterance.start or 0.0) * SAMPLING_RATE)
    end = None if utterance.end is None else round(utterance.end * SAMPLING_RATE)
    piece = samples[start:end]
    if len(piece) == 0:
        raise AudioError(
            f"{utterance.path} is {len(samples) / SAMPLING_RATE:.2f} s long and has nothing "
            f"between {utterance.start} and {utterance.end} seconds; correct start and end"
        )
    integers: NDArray[np.int16] = np.clip(np.rint(piece * SCALE), -SCALE, SCALE - 1).astype(
        np.int16
    )
    return integers
