"""Decode sound while it arrives: a container as a browser's MediaRecorder sends it, or raw PCM.

Unlike a file, the sound has no known length and cannot be read again. Containers need the extra
`media`; FFmpeg gets one demuxer, no protocol and a short list of codecs.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from emoser.audio.limits import (
    DEFAULT_LIMITS,
    AudioLimits,
    FloatArray,
    NativeAudio,
    check_shape,
    scale_to_float,
)
from emoser.errors import AudioError, missing_extra

BLOCK_SECONDS = 0.1
NAME = "the stream"
PCM_DTYPES = {"s16le": "<i2", "f32le": "<f4"}
_DEMUXERS = {b"\x1a\x45\xdf\xa3": "matroska", b"OggS": "ogg"}  # by the first bytes
_MP4 = b"ftyp"  # from the fifth byte on
_HEAD_BYTES = 8
_OPTIONS = {"protocol_whitelist": "none", "format_whitelist": "matroska,webm,ogg,mov,mp4"}
_CODECS = ("opus", "libopus", "vorbis", "aac", "flac", "alac", "pcm_s16le", "pcm_f32le", "mp3float")


class LiveBytes(Protocol):
    """Bytes that are still arriving."""

    def read(self, size: int = -1, /) -> bytes:
        """Wait for data; one to `size` bytes, or none at the end."""
        ...


@dataclass(frozen=True)
class PcmFormat:
    """Raw samples, interleaved.

    Attributes:
        coding: "s16le" or "f32le".
        sampling_rate: In Hz.
        channels: Number of channels.

    Raises:
        ValueError: If the coding is unknown.
    """

    coding: str
    sampling_rate: int
    channels: int = 1

    def __post_init__(self) -> None:
        if self.coding not in PCM_DTYPES:
            raise ValueError(f"coding is {self.coding!r}; use one of {', '.join(PCM_DTYPES)}")


@contextmanager
def open_live(
    stream: LiveBytes, pcm: PcmFormat | None = None, *, limits: AudioLimits = DEFAULT_LIMITS
) -> Iterator[NativeAudio]:
    """Sound that is still arriving, in blocks of at least a tenth of a second.

    Args:
        stream: The bytes; reading waits for them.
        pcm: The format of raw samples; None for WebM, Ogg or MP4 (in fragments).
        limits: Sound beyond these is refused.

    Raises:
        AudioError: If the bytes cannot be decoded or their shape is beyond the limits; while
            blocks are read also if the sound is too long.
        DependencyError: If a container arrives and PyAV is not installed.

    Example:
        >>> import io
        >>> with open_live(io.BytesIO(bytes(3200)), PcmFormat("s16le", 8000)) as sound:
        ...     [len(block) for block in sound.blocks]
        [800, 800]
    """
    if pcm is not None:
        check_shape(pcm.sampling_rate, pcm.channels, limits, NAME)
        blocks = _read_pcm(stream, pcm)
        native = NativeAudio(pcm.sampling_rate, pcm.channels, None, blocks)
        native.blocks = _limited(blocks, native, limits)
        yield native
        return
    try:
        import av
    except ImportError as error:
        raise missing_extra("decoding WebM, Ogg or MP4 that is still arriving", "media") from error
    known = _Known(stream)
    try:
        with av.open(
            known, format=known.demuxer, options=_OPTIONS, metadata_errors="ignore"
        ) as media:
            native, blocks = _open_track(media, limits)
            native.blocks = _limited(blocks, native, limits)
            yield native
    except av.FFmpegError as error:
        raise AudioError(
            f"{NAME} begins like {known.demuxer} but cannot be decoded ({error.strerror}); send "
            "the chunks of one recording in order, from the first on"
        ) from error


class _Known:
    """The stream from its first byte on, after its container has been recognised."""

    def __init__(self, stream: LiveBytes) -> None:
        self._stream = stream
        self._head = b""
        while len(self._head) < _HEAD_BYTES and (data := stream.read(_HEAD_BYTES)):
            self._head += data
        is_mp4 = self._head[4:8] == _MP4
        found = "mov" if is_mp4 else _DEMUXERS.get(self._head[:4])
        if found is None:
            begins = f"begins with the bytes {self._head.hex(' ')}" if self._head else "is empty"
            raise AudioError(
                f"{NAME} {begins}; send WebM, Ogg or MP4 as MediaRecorder makes it, or state the "
                "format of raw samples"
            )
        self.demuxer = found

    def read(self, size: int) -> bytes:
        """The head first, then what arrives."""
        if self._head:
            data, self._head = self._head[:size], self._head[size:]
            return data
        return self._stream.read(size)


def _open_track(media: Any, limits: AudioLimits) -> tuple[NativeAudio, Iterator[FloatArray]]:
    if not media.streams.audio:
        raise AudioError(f"{NAME} holds no sound track; record audio")
    track = media.streams.audio[0]
    codec = track.codec_context.name
    if codec not in _CODECS:
        raise AudioError(
            f"{NAME} holds sound coded as {codec}, which is not decoded here; record Opus or AAC"
        )
    context = track.codec_context
    check_shape(context.sample_rate, context.layout.nb_channels, limits, NAME)
    native = NativeAudio(context.sample_rate, context.layout.nb_channels, None, iter(()))
    return native, _group(_decode(media, track, native), native)


def _decode(media: Any, track: Any, native: NativeAudio) -> Iterator[FloatArray]:
    """The frames as (n, channels); damage ends them and sets `native.truncated`."""
    import av

    resampler = av.AudioResampler("flt", track.codec_context.layout, native.sampling_rate)
    try:
        for frame in media.decode(track):
            for part in resampler.resample(frame):
                yield part.to_ndarray().reshape(-1, native.num_channels)
    except av.FFmpegError:
        native.truncated = True


def _group(frames: Iterator[FloatArray], native: NativeAudio) -> Iterator[FloatArray]:
    """Frames of some milliseconds, joined to blocks."""
    pending = list[FloatArray]()
    for frame in frames:
        pending.append(frame)
        if sum(map(len, pending)) >= BLOCK_SECONDS * native.sampling_rate:
            yield np.concatenate(pending)
            pending.clear()
    if pending:
        yield np.concatenate(pending)


def _read_pcm(stream: LiveBytes, pcm: PcmFormat) -> Iterator[FloatArray]:
    dtype = np.dtype(PCM_DTYPES[pcm.coding])
    frame = dtype.itemsize * pcm.channels
    wanted = max(1, round(BLOCK_SECONDS * pcm.sampling_rate)) * frame
    pending, more = b"", True
    while more:
        data = stream.read(wanted)
        pending, more = pending + data, bool(data)
        if len(pending) >= wanted or not more:
            usable = len(pending) - len(pending) % frame
            if usable:
                values = np.frombuffer(pending[:usable], dtype).reshape(-1, pcm.channels)
                yield scale_to_float(values)
            pending = pending[usable:]


def _limited(
    blocks: Iterator[FloatArray], native: NativeAudio, limits: AudioLimits
) -> Iterator[FloatArray]:
    """The blocks, refused where they are longer than the limit."""
    num_frames = 0
    for block in blocks:
        num_frames += len(block)
        if num_frames > limits.max_seconds * native.sampling_rate:
            raise AudioError(
                f"{NAME} is longer than {limits.max_seconds:g} s; end it and begin another one"
            )
        yield block
