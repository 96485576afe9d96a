"""Decode m4a, aac, mp4, webm, amr and wma with PyAV (extra `media`) into blocks of float32 frames.

FFmpeg gets one demuxer, no protocol, no file name and a short list of codecs, so that a file
cannot make it open another file or the network.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from emoser.audio.limits import (
    MAX_BLOCK_VALUES,
    AudioLimits,
    FloatArray,
    NativeAudio,
    check_shape,
    scale_to_float,
)
from emoser.audio.reader import ByteReader
from emoser.audio.sniffing import Container
from emoser.errors import AudioError, missing_extra

# No protocol has this name, so nothing that a file refers to is opened.
_DEMUXERS = "mov,matroska,webm,aac,amr,asf,caf"
_OPTIONS = {"protocol_whitelist": "none", "format_whitelist": _DEMUXERS}
_CODECS = {
    *("aac", "aac_fixed", "alac", "mp3", "mp3float", "opus", "libopus", "vorbis", "flac"),
    *("amrnb", "amrwb", "libopencore_amrnb", "libopencore_amrwb", "wmav1", "wmav2", "wmapro"),
    *("ac3", "eac3", "pcm_s16le", "pcm_s16be", "pcm_s24le", "pcm_s24be", "pcm_s32le"),
    *("pcm_f32le", "pcm_f64le", "pcm_alaw", "pcm_mulaw", "pcm_u8"),
}
# Demuxers whose headers state a duration; for the others FFmpeg guesses it from the bit rate.
_STATES_DURATION = {"mov", "matroska", "asf"}
# Encoder delay, padding and rounding of time stamps stay far below this.
_DURATION_TOLERANCE_SECONDS = 0.2


@contextmanager
def open_media(
    reader: ByteReader, container: Container, limits: AudioLimits, name: str
) -> Iterator[NativeAudio]:
    """The first sound track of a media file, in blocks of a second or less."""
    try:
        import av
    except ImportError as error:
        raise missing_extra(f"decoding {container.label}", "media") from error
    reader.seek(0)
    try:
        with av.open(
            reader, format=container.ffmpeg_format, options=_OPTIONS, metadata_errors="ignore"
        ) as media:
            yield _open_track(media, reader, container, limits, name)
    except av.FFmpegError as error:
        reader.raise_failure()
        raise AudioError(
            f"{name} begins like {container.label} but cannot be decoded "
            f"({error.strerror}); it is damaged or incomplete: copy or record it again"
        ) from error


def _open_track(
    media: Any, reader: ByteReader, container: Container, limits: AudioLimits, name: str
) -> NativeAudio:
    if not media.streams.audio:
        raise AudioError(f"{name} ({container.label}) holds no sound track; pass one that does")
    stream = media.streams.audio[0]
    codec = stream.codec_context.name if stream.codec_context is not None else "unknown"
    if codec not in _CODECS:
        raise AudioError(
            f"{name} holds sound coded as {codec}, which is not decoded here; "
            "convert it to wav or flac"
        )
    frames = media.decode(stream)
    first = next(frames, None)
    if first is None:
        raise AudioError(f"{name} ({container.label}) holds no samples")
    num_channels = first.layout.nb_channels
    check_shape(first.sample_rate, num_channels, limits, name)
    declared = _declared_seconds(media, stream, container)
    native = NativeAudio(first.sample_rate, num_channels, declared, iter(()))
    native.blocks = _read_blocks(first, frames, reader, native, name)
    return native


def _declared_seconds(media: Any, stream: Any, container: Container) -> float | None:
    if container.ffmpeg_format not in _STATES_DURATION:
        return None
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    if media.duration is not None and len(media.streams) == 1:
        return float(media.duration) / 1_000_000  # FFmpeg counts microseconds
    return None


def _read_blocks(
    first: Any, frames: Iterator[Any], reader: ByteReader, native: NativeAudio, name: str
) -> Iterator[FloatArray]:
    """Blocks until the data end or the decoder fails; sets `native.truncated`."""
    import av

    step = max(1, min(native.sampling_rate, MAX_BLOCK_VALUES // native.num_channels))
    pending, num_pending, num_frames = [_to_float(first)], first.samples, first.samples
    try:
        for frame in frames:
            _refuse_change(frame, native, name)
            pending.append(_to_float(frame))
            num_pending += frame.samples
            num_frames += frame.samples
            if num_pending >= step:
                yield np.concatenate(pending)
                pending, num_pending = [], 0
    except av.FFmpegError:
        native.truncated = True
    reader.raise_failure()
    if pending:
        yield np.concatenate(pending)
    declared = native.declared_seconds or 0.0
    native.truncated |= declared - num_frames / native.sampling_rate > _DURATION_TOLERANCE_SECONDS


def _refuse_change(frame: Any, native: NativeAudio, name: str) -> None:
    found = (frame.sample_rate, frame.layout.nb_channels)
    if found != (native.sampling_rate, native.num_channels):
        raise AudioError(
            f"{name} changes from {native.sampling_rate} Hz with {native.num_channels} channels "
            f"to {found[0]} Hz with {found[1]} in the middle; split it there"
        )


def _to_float(frame: Any) -> FloatArray:
    """One decoded frame as (n, channels)."""
    values = frame.to_ndarray()  # (channels, n), or (1, n * channels) where not planar
    if frame.format.is_planar:
        return scale_to_float(values.T)
    return scale_to_float(values.reshape(-1, frame.layout.nb_channels))
