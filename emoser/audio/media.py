"""Decode media files and rare codings with PyAV (extra `media`) into blocks of float32 frames.

FFmpeg gets one demuxer, no protocol, no file name and a short list of codecs, so that a file
cannot make it open another file or the network.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import chain
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
from emoser.audio.reader import ByteReader, Extent
from emoser.audio.sniffing import Container
from emoser.errors import AudioError, missing_extra

# No protocol has this name, so nothing that a file refers to is opened.
_DEMUXERS = (
    "mov,matroska,webm,aac,loas,amr,asf,caf,avi,mpegts,mpeg,flv,wv,tta,ac3,eac3,ogg,wav,w64,aiff,au"
)
_OPTIONS = {"protocol_whitelist": "none", "format_whitelist": _DEMUXERS}
_CODECS = {
    *("aac", "aac_fixed", "aac_latm", "alac", "mp3", "mp3float", "mp2", "mp2float", "mp1"),
    *("mp1float", "opus", "libopus", "vorbis", "flac", "speex", "libspeex", "wavpack", "tta"),
    *("amrnb", "amrwb", "libopencore_amrnb", "libopencore_amrwb", "wmav1", "wmav2", "wmapro"),
    *("ac3", "ac3_fixed", "eac3", "dca", "nellymoser", "gsm", "gsm_ms", "truespeech"),
    *("g722", "g723_1", "g726", "g726le", "g729", "adpcm_g722", "adpcm_g726", "adpcm_g726le"),
    *("adpcm_ima_wav", "adpcm_ima_qt", "adpcm_ms", "adpcm_yamaha", "adpcm_swf"),
    *("pcm_s16le", "pcm_s16be", "pcm_s24le", "pcm_s24be", "pcm_s32le", "pcm_s32be"),
    *("pcm_f32le", "pcm_f32be", "pcm_f64le", "pcm_f64be", "pcm_alaw", "pcm_mulaw", "pcm_u8"),
    *("pcm_s8", "pcm_dvd", "pcm_bluray"),
}
# Demuxers whose headers state a duration; for the others FFmpeg guesses it from the bit rate.
_STATES_DURATION = {"mov", "matroska", "asf", "caf", "wv", "tta", "ogg"}
# The encoder delay, which a decoder leaves out, is up to 2,112 samples (132 ms at 16 kHz).
_DURATION_TOLERANCE_SECONDS = 0.15
# FFmpeg shortens the last packet of ALAC by its padding, which the packet itself leaves out.
_ALAC_OPTIONS = {"flags2": "+skip_manual"}


@contextmanager
def open_media(
    extent: Extent, container: Container, limits: AudioLimits, name: str
) -> Iterator[NativeAudio]:
    """The first sound track of a media file, in blocks of a second or less.

    It counts as truncated if there are others.
    """
    try:
        import av
    except ImportError as error:
        raise missing_extra(f"decoding {container.label}", "media") from error
    reader, demuxer = extent.view, container.demuxer or container.fallback
    reader.seek(0)
    try:
        with av.open(reader, format=demuxer, options=_OPTIONS, metadata_errors="ignore") as media:
            native, frames = _open_track(media, container, limits, name)
            native.truncated |= extent.is_cut
            native.blocks = _read_blocks(frames, reader, native, name)
            yield native
    except av.FFmpegError as error:
        reader.raise_failure(name)
        raise AudioError(
            f"{name} begins like {container.label} but cannot be decoded "
            f"({error.strerror}); it is damaged or incomplete: copy or record it again"
        ) from error


def _open_track(
    media: Any, container: Container, limits: AudioLimits, name: str
) -> tuple[NativeAudio, Iterator[Any]]:
    """The first sound track and its frames."""
    if not media.streams.audio:
        raise AudioError(f"{name} ({container.label}) holds no sound track; pass one that does")
    stream = media.streams.audio[0]
    codec = stream.codec_context.name if stream.codec_context is not None else "unknown"
    if codec not in _CODECS:
        raise AudioError(
            f"{name} holds sound coded as {codec}, which is not decoded here; "
            "convert it to wav or flac"
        )
    if codec == "alac" and container.demuxer == "caf":
        stream.codec_context.options = _ALAC_OPTIONS
    declared = _declared_seconds(media, stream, container)
    native = NativeAudio(0, 0, declared, iter(()), truncated=len(media.streams.audio) > 1)
    frames = _decode(media, stream, native)
    first = next(frames, None)
    if first is None:
        raise AudioError(f"{name} ({container.label}) holds no samples")
    native.sampling_rate, native.num_channels = first.sample_rate, first.layout.nb_channels
    check_shape(native.sampling_rate, native.num_channels, limits, name)
    return native, chain([first], frames)


def _declared_seconds(media: Any, stream: Any, container: Container) -> float | None:
    if (container.demuxer or container.fallback) not in _STATES_DURATION:
        return None
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    if (text := stream.metadata.get("DURATION")) is not None:  # Matroska
        with suppress(ValueError):
            hours, minutes, seconds = text.split(":")
            return 3600 * int(hours) + 60 * int(minutes) + float(seconds)
    if media.duration is not None and len(media.streams) == 1:
        return float(media.duration) / 1_000_000  # FFmpeg counts microseconds
    return None


def _decode(media: Any, stream: Any, native: NativeAudio) -> Iterator[Any]:
    """The frames of a stream; incomplete packets and damage set `native.truncated`."""
    import av

    packets = media.demux(stream)
    while True:
        try:
            packet = next(packets, None)
            if packet is None:
                return
            native.truncated |= packet.is_corrupt
            yield from packet.decode()
        except av.FFmpegError:
            native.truncated = True
            return


def _read_blocks(
    frames: Iterator[Any], reader: ByteReader, native: NativeAudio, name: str
) -> Iterator[FloatArray]:
    """Blocks until the data end or the decoder fails; sets `native.truncated`."""
    step = max(1, min(native.sampling_rate, MAX_BLOCK_VALUES // native.num_channels))
    pending, num_pending, num_frames = list[FloatArray](), 0, 0
    for frame in frames:
        _refuse_change(frame, native, name)
        pending.append(_to_float(frame))
        num_pending += frame.samples
        num_frames += frame.samples
        if num_pending >= step:
            yield np.concatenate(pending)
            pending, num_pending = [], 0
    reader.raise_failure(name)
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
