"""A recording, block by block: float32 mono at one rate in constant memory."""

from collections.abc import Generator, Iterator
from contextlib import ExitStack
from typing import Any, Self, TypeAlias

import numpy as np

from emoser.audio.arrays import is_array, mix_frames, open_array
from emoser.audio.files import open_file
from emoser.audio.intake import Intake
from emoser.audio.limits import (
    DEFAULT_LIMITS,
    SAMPLING_RATE,
    AudioLimits,
    FloatArray,
    NativeAudio,
)
from emoser.audio.sources import Source, describe_source, open_source, source_name
from emoser.audio.wrappers import unwrap
from emoser.errors import AudioError
from emoser.text import counted

Channel: TypeAlias = int | str

BLOCK_SECONDS = 30.0
_CHANNEL_NAMES = {"left": 0, "right": 1}


class AudioBlocks:
    """Iterates once over a recording of any length; a context manager that closes what it opened.

    The joined blocks are what `load_audio` gives; it raises the same errors.

    Args:
        source: As for `load_audio`.
        sampling_rate: As for `load_audio`.
        channel: As for `load_audio`.
        limits: As for `load_audio`; `max_whole_seconds` is ignored.
        block_seconds: Seconds of every block but the last.
        target_rate: As for `load_audio`.

    Attributes:
        name: The path or file name as it is; None for bytes and arrays.
        source_rate: Sampling rate of the recording in Hz.
        num_channels: Channels of the recording.
        declared_seconds: Length according to the header; None if unknown. Not reliable.

    Example:
        >>> hum = np.zeros(40_000, np.float32)
        >>> with AudioBlocks(hum, sampling_rate=16_000, block_seconds=1.0) as blocks:
        ...     [len(block) for block in blocks]
        [16000, 16000, 8000]
    """

    def __init__(
        self,
        source: Source,
        *,
        sampling_rate: int | None = None,
        channel: Channel = "mix",
        limits: AudioLimits = DEFAULT_LIMITS,
        block_seconds: float = BLOCK_SECONDS,
        target_rate: int = SAMPLING_RATE,
    ) -> None:
        if not block_seconds > 0:
            raise ValueError(f"block_seconds is {block_seconds}; pass a positive number of seconds")
        check_channel(channel)
        self.name = source_name(source)
        self._described = describe_source(source)
        self._limits = limits
        self._exhausted = False
        with ExitStack() as opening:
            self._native = _open_native(source, sampling_rate, limits, opening)
            self.source_rate = self._native.sampling_rate
            self.num_channels = self._native.num_channels
            self.declared_seconds = self._native.declared_seconds
            self._channel = choose_channel(channel, self.num_channels, self._described)
            self._resources = opening.pop_all()
        self._num_frames = 0  # at source_rate
        self._intake = Intake(self._described, self.source_rate, target_rate=target_rate)
        block_samples = max(1, round(block_seconds * target_rate))
        self._blocks = _regroup(self._resampled_blocks(), block_samples)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close what was opened; a file object of the caller stays open at its old position."""
        self._blocks.close()
        self._resources.close()

    def __iter__(self) -> Iterator[FloatArray]:
        return self

    def __next__(self) -> FloatArray:
        """The next block, shape (n,).

        Raises:
            AudioError: If the rest is damaged, too long, or holds NaN or infinity; at the
                end, if there were no samples.
        """
        return next(self._blocks)

    @property
    def duration(self) -> float:
        """Seconds that were decoded; a RuntimeError before the last block was read."""
        self._require_exhausted("duration")
        return self._num_frames / self.source_rate

    @property
    def quality(self) -> tuple[str, ...]:
        """The flags of the whole recording; a RuntimeError before the last block was read."""
        self._require_exhausted("quality")
        return self._intake.flags(truncated=self._native.truncated)

    def _require_exhausted(self, wanted: str) -> None:
        if not self._exhausted:
            raise RuntimeError(f"{wanted} is known once every block was read; read on to the end")

    def frames(self) -> Iterator[FloatArray]:
        """Blocks of the recording at its own rate and with all its channels, (n, channels).

        To be used instead of iterating over the object.

        Raises:
            AudioError: If the rest is damaged or too long.
        """
        for frames in self._native.blocks:
            self._num_frames += len(frames)
            if self._num_frames > self._limits.max_seconds * self.source_rate:
                raise AudioError(
                    f"{self._described} is longer than {self._limits.max_seconds:g} s; "
                    "cut it, or pass AudioLimits with a larger max_seconds"
                )
            yield frames
        self._exhausted = True
        self._resources.close()

    def _resampled_blocks(self) -> Iterator[FloatArray]:
        for frames in self.frames():
            yield self._intake.push(take_channel(frames, self._channel))
        yield self._intake.flush()


def _open_native(
    source: Any, sampling_rate: int | None, limits: AudioLimits, opening: ExitStack
) -> NativeAudio:
    inner, own_rate = unwrap(source)
    if is_array(inner):
        return open_array(inner, sampling_rate if own_rate is None else own_rate, limits)
    name = describe_source(source)
    reader = opening.enter_context(open_source(inner, limits, name))
    return open_file(reader, limits, name, opening)


def check_channel(channel: Channel) -> None:
    """Raise a TypeError or a ValueError for what names no channel."""
    message = f"channel is {channel!r}; pass 'mix', 'left', 'right' or an index from 0 on"
    if isinstance(channel, bool) or not isinstance(channel, str | int | np.integer):
        raise TypeError(message)
    if isinstance(channel, str) and channel not in ("mix", *_CHANNEL_NAMES):
        raise ValueError(message)


def choose_channel(channel: Channel, num_channels: int, name: str) -> int | None:
    """The index of the channel; None for the mean over all."""
    if channel == "mix":
        return None
    index = _CHANNEL_NAMES[channel] if isinstance(channel, str) else int(channel)
    if not 0 <= index < num_channels:
        raise AudioError(
            f"channel {channel!r} is not there: {name} has {counted(num_channels, 'channel')}, "
            f"so an index from 0 to {num_channels - 1}, or 'mix', is allowed"
        )
    return index


def take_channel(frames: FloatArray, channel: int | None) -> FloatArray:
    """One channel of (n, channels), or the mean over them; shape (n,)."""
    if channel is not None:
        return np.ascontiguousarray(frames[:, channel])
    return mix_frames(frames)


def _regroup(blocks: Iterator[FloatArray], num_samples: int) -> Generator[FloatArray]:
    """Blocks of exactly `num_samples`, the last one shorter, each in memory of its own."""
    pending: list[FloatArray] = []
    num_pending = 0
    for block in blocks:
        start = 0
        while num_pending + len(block) - start >= num_samples:
            end = start + num_samples - num_pending
            yield np.concatenate([*pending, block[start:end]])
            pending, num_pending, start = [], 0, end
        if start < len(block):
            pending.append(block[start:])
            num_pending += len(block) - start
    if pending:
        yield np.concatenate(pending)
