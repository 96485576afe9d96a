"""Live audio in blocks: the microphone, and raw samples from a pipe.

Lost samples are counted and replaced by silence, so that times stay correct.
"""

import queue
from collections.abc import Iterator
from typing import Any, BinaryIO, Self

import numpy as np
import numpy.typing as npt

from emoser.audio.limits import SAMPLING_RATE
from emoser.errors import DeviceError, missing_extra

BLOCK_SECONDS = 0.1
MAX_WAITING_SECONDS = 10.0  # audio queued while the model is busy; further blocks are lost
PCM_FORMATS = {"u8": "u1", "s16le": "<i2", "s32le": "<i4", "f32le": "<f4", "f64le": "<f8"}
"""Sample formats of raw audio by their FFmpeg names."""


class Microphone:
    """The blocks of the microphone, each of shape (n, channels), until it is closed.

    Args:
        sampling_rate: Rate in Hz.
        device: Name or number of the input in sounddevice; None for the default input.

    Raises:
        DependencyError: If sounddevice, or the PortAudio under it, is not installed.
        DeviceError: If the microphone does not exist or cannot be opened.
    """

    def __init__(
        self, *, sampling_rate: int = SAMPLING_RATE, device: str | int | None = None
    ) -> None:
        try:
            import sounddevice
        except (ImportError, OSError) as error:  # OSError: PortAudio itself is missing
            raise missing_extra("listening to the microphone", "live") from error
        waiting = round(MAX_WAITING_SECONDS / BLOCK_SECONDS)
        self._blocks: queue.Queue[tuple[int, npt.NDArray[np.float32]]] = queue.Queue(waiting)
        self._lost = 0  # samples since the last block that was kept
        self.num_dropped = 0
        try:
            self._stream = sounddevice.InputStream(
                samplerate=sampling_rate,
                device=device,
                channels=1,
                dtype="float32",
                blocksize=round(BLOCK_SECONDS * sampling_rate),
                callback=self._receive,
            )
        except (sounddevice.PortAudioError, ValueError) as error:
            raise DeviceError(f"the microphone cannot be opened: {error}") from error

    def __enter__(self) -> Self:
        self._stream.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stream.close()

    def __iter__(self) -> Iterator[npt.NDArray[np.float32]]:
        while True:
            lost, block = self._blocks.get()
            if lost:
                yield np.zeros((lost, block.shape[1]), np.float32)
            yield block

    def _receive(
        self, block: npt.NDArray[np.float32], num_samples: int, _time: Any, status: Any
    ) -> None:
        """Called by sounddevice in its own thread, which must not block."""
        if status.input_overflow:  # an unknown number of samples was lost
            self.num_dropped += 1
        try:
            self._blocks.put_nowait((self._lost, block.copy()))
            self._lost = 0
        except queue.Full:
            self.num_dropped += 1
            self._lost += num_samples


def read_pcm(
    file: BinaryIO, *, sampling_rate: int, sample_format: str = "s16le", num_channels: int = 1
) -> Iterator[npt.NDArray[Any]]:
    """Blocks of raw audio of shape (n, channels) as they arrive, until the file ends.

    An incomplete sample at the end is dropped.

    Args:
        file: Interleaved samples without a header.
        sampling_rate: Rate in Hz.
        sample_format: One of `PCM_FORMATS`.
        num_channels: Number of interleaved channels.

    Raises:
        ValueError: If the format is unknown, or the rate or the number is not positive.

    Example:
        >>> import io
        >>> raw = io.BytesIO(np.arange(4, dtype="<i2").tobytes())
        >>> [block.tolist() for block in read_pcm(raw, sampling_rate=8000, num_channels=2)]
        [[[0, 1], [2, 3]]]
    """
    if sample_format not in PCM_FORMATS:
        allowed = ", ".join(PCM_FORMATS)
        raise ValueError(f"the sample format is {sample_format!r}; use one of {allowed}")
    if sampling_rate < 1 or num_channels < 1:
        raise ValueError(
            f"{num_channels} channels at {sampling_rate} Hz were given; both must be at least 1"
        )
    dtype = np.dtype(PCM_FORMATS[sample_format])
    width = dtype.itemsize * num_channels
    read = getattr(file, "read1", file.read)  # read1 gives what is there without waiting for more
    size = width * max(1, round(BLOCK_SECONDS * sampling_rate))
    rest = b""
    while data := read(size):
        data = rest + data
        whole = len(data) // width * width
        rest = data[whole:]
        if whole:
            yield np.frombuffer(data[:whole], dtype).reshape(-1, num_channels)
