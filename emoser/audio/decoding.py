"""Decode with libsndfile into blocks of float32 frames; the other decoder is `media`."""

import math
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import numpy as np
import soundfile

from emoser.audio.frames import ends_with_tag
from emoser.audio.limits import AudioLimits, FloatArray, NativeAudio, check_shape
from emoser.audio.quiet import without_mpg123_messages
from emoser.audio.reader import ByteReader, Extent
from emoser.audio.sniffing import MP3, WAV, Container
from emoser.errors import AudioError

# What libsndfile may decode. Not among them: IRCAM and MATLAB files, whose readers have known
# faults; ALAC (see `CAF_ALAC`); and what has no header or is no recording (RAW, SD2, SDS, MPC, XI).
_FORMATS = {
    *("WAV", "WAVEX", "RF64", "W64", "AIFF", "CAF", "AU", "FLAC", "OGG", "MP3", "MPEG"),
    *("NIST", "VOC", "SVX", "PVF", "PAF", "AVR", "WVE", "HTK"),
}
_MPEG = ("MPEG_LAYER_I", "MPEG_LAYER_II", "MPEG_LAYER_III")
_SUBTYPES = {
    *("PCM_S8", "PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW"),
    *("IMA_ADPCM", "MS_ADPCM", "GSM610", "G721_32", "G723_24", "G723_40"),
    *("NMS_ADPCM_16", "NMS_ADPCM_24", "NMS_ADPCM_32", "DWVW_12", "DWVW_16", "DWVW_24"),
    *("VORBIS", "OPUS", *_MPEG),
}
# Frames times channels decoded at a time: few calls, and the results fit the processor cache.
READ_VALUES = 96_000
# After a decoder error, the last good samples are read in steps of these many frames.
_RECOVERY_STEPS = (256, 16, 1)


class _ForwardFile(soundfile.SoundFile):  # type: ignore[misc]  # soundfile is untyped here
    """A sound file that soundfile reads sequentially.

    After every read of a seekable file soundfile seeks to the current position. That makes
    libmpg123 lose its bit reservoir and warn on standard error, and slows compressed formats.
    """

    def seekable(self) -> bool:
        return False


class UnknownCodingError(AudioError):
    """A recording in a known container whose coding libsndfile does not decode."""


@contextmanager
def open_sound_file(
    extent: Extent, container: Container, limits: AudioLimits, name: str
) -> Iterator[NativeAudio]:
    """A recording that libsndfile decodes, in blocks of `READ_VALUES` or less."""
    reader = extent.view
    with _open(reader, container, name) as file:
        if file.format not in _FORMATS or file.subtype not in _SUBTYPES:
            raise UnknownCodingError(
                f"{name} is {file.format} with {file.subtype}, which is not decoded here; "
                "convert it to wav or flac"
            )
        check_shape(file.samplerate, file.channels, limits, name)
        num_frames = extent.num_frames or file.frames
        is_known = num_frames < 2**62
        if file.subtype in _MPEG and container is not MP3:
            is_known = False  # libmpg123 estimates it
        declared = num_frames / file.samplerate if is_known else None
        native = NativeAudio(file.samplerate, file.channels, declared, iter(()), extent.is_cut)
        native.blocks = _read_blocks(file, reader, container, native, name)
        yield native


def _open(reader: ByteReader, container: Container, name: str) -> _ForwardFile:
    reader.seek(0)
    descriptor = reader.take_descriptor()
    try:
        with without_mpg123_messages() if container in (MP3, WAV) else nullcontext():
            if descriptor is not None:
                return _ForwardFile(descriptor, closefd=False)
            return _ForwardFile(reader)
    except soundfile.LibsndfileError as error:
        reader.raise_failure(name)
        raise UnknownCodingError(
            f"{name} begins like {container.label} but cannot be decoded "
            f"({error.error_string.rstrip('.')}); it is damaged or of a rare kind: convert it"
        ) from error


def _read_blocks(
    file: _ForwardFile,
    reader: ByteReader,
    container: Container,
    native: NativeAudio,
    name: str,
) -> Iterator[FloatArray]:
    """Blocks until the data end or the decoder fails; sets `native.truncated`."""
    step = max(1, READ_VALUES // native.num_channels)
    declared = native.declared_seconds or 0.0
    num_declared = math.floor(declared * native.sampling_rate + 0.5)
    num_frames = 0
    try:
        # An error loses a whole read, so one read ends where the declared length does.
        while len(block := _read(file, min(step, max(num_declared - num_frames, 0) or step))):
            num_frames += len(block)
            yield block
    except soundfile.LibsndfileError as error:
        if num_frames != num_declared or not ends_with_tag(reader):
            for block in _recover(reader, container, num_frames, name):
                num_frames += len(block)
                yield block
            native.truncated = True
        if not num_frames:
            raise AudioError(
                f"{name} cannot be decoded as {container.label} "
                f"({error.error_string.rstrip('.') or 'lost synchronisation'}); it is damaged"
            ) from error
    reader.raise_failure(name)
    native.truncated |= num_frames < num_declared


def _read(file: _ForwardFile, num_frames: int) -> FloatArray:
    block = np.empty((num_frames, file.channels), np.float32)
    with without_mpg123_messages() if file.subtype in _MPEG else nullcontext():
        return block[: file.buffer_read_into(block, "float32")]


def _recover(
    reader: ByteReader, container: Container, position: int, name: str
) -> Iterator[FloatArray]:
    """The good frames after `position`: libsndfile drops a whole read if it meets an error."""
    for step in _RECOVERY_STEPS:
        with _open(reader, container, name) as file:
            try:
                _skip(file, position)
                while len(block := _read(file, step)):
                    position += len(block)
                    yield block
            except soundfile.LibsndfileError:
                continue
            return


def _skip(file: _ForwardFile, num_frames: int) -> None:
    """Read and drop frames; a file that does not declare its length cannot be searched."""
    step = max(1, READ_VALUES // file.channels)
    while num_frames and (count := len(_read(file, min(step, num_frames)))):
        num_frames -= count
