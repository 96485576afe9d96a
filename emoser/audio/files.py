"""Decode a file, which may hold one recording after another.

Chained Ogg, joined MP3, FLAC or WAV files and the like are decoded one after the other. What
cannot be decoded, or has another sampling rate or number of channels, is left out, and the
recording counts as truncated.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager

from emoser.audio import elements, frames
from emoser.audio.declared import settle_au, settle_chunks, settles_chunks
from emoser.audio.decoding import UnknownCodingError, open_sound_file
from emoser.audio.headers import settle_nist, settle_tta, settle_voc
from emoser.audio.limits import AudioLimits, FloatArray, NativeAudio
from emoser.audio.media import open_media
from emoser.audio.mp3 import settle_mp3
from emoser.audio.reader import ByteReader, Extent
from emoser.audio.sniffing import (
    AMR,
    AU,
    FLAC,
    FRAMED,
    MP3,
    NIST,
    OGG,
    TS,
    TTA,
    VOC,
    Container,
    identify,
)
from emoser.errors import AudioError, DependencyError

_MAX_RECORDINGS = 1_000  # in one file
_TAIL_BYTES = 4_096  # a text as long as this is no sound


def open_file(
    reader: ByteReader, limits: AudioLimits, name: str, opening: ExitStack
) -> NativeAudio:
    """The recordings of a file as one; `opening` closes the first."""
    extent, decoding = _open_at(reader, 0, limits, name)
    native = opening.enter_context(decoding)
    native.blocks = _read_all(native, native.blocks, reader, extent.end, limits)
    return native


def _read_all(
    native: NativeAudio,
    blocks: Iterator[FloatArray],
    reader: ByteReader,
    end: int,
    limits: AudioLimits,
) -> Iterator[FloatArray]:
    """The blocks of the first recording and of those after it."""
    yield from blocks
    for _ in range(_MAX_RECORDINGS):
        if frames.is_tag(reader.read_at(frames.tags_end(reader, end), _TAIL_BYTES)):
            return
        try:
            extent, decoding = _open_at(reader, end, limits, "what follows")
            with decoding as further:
                if _shape(further) != _shape(native):
                    break
                yield from further.blocks
                native.truncated |= further.truncated
        except (AudioError, DependencyError):
            break
        end = extent.end
    native.truncated = True


def _shape(native: NativeAudio) -> tuple[int, int]:
    return native.sampling_rate, native.num_channels


def _open_at(
    reader: ByteReader, position: int, limits: AudioLimits, name: str
) -> tuple[Extent, AbstractContextManager[NativeAudio]]:
    """The recording at a position, its end counted in the reader."""
    rest = reader.select([range(position, reader.size)]) if position else reader
    container, start, is_cut = identify(rest, name)
    rest = rest.select([range(start, rest.size)]) if start else rest
    extent = _settle(rest, container, name)
    extent = Extent(
        extent.view, position + start + extent.end, extent.is_cut or is_cut, extent.num_frames
    )
    return extent, _decode(extent, container, limits, name)


@contextmanager
def _decode(
    extent: Extent, container: Container, limits: AudioLimits, name: str
) -> Iterator[NativeAudio]:
    """With libsndfile where it can, else with FFmpeg."""
    with ExitStack() as stack:
        if container.demuxer:
            native = stack.enter_context(open_media(extent, container, limits, name))
        else:
            try:
                native = stack.enter_context(open_sound_file(extent, container, limits, name))
            except UnknownCodingError as refusal:
                if not container.fallback:
                    raise
                try:
                    native = stack.enter_context(open_media(extent, container, limits, name))
                except (AudioError, DependencyError):
                    raise refusal from None
        yield native


def _settle(reader: ByteReader, container: Container, name: str) -> Extent:
    """Where the recording at the start of a reader ends, in a view that suits the decoder."""
    if settles_chunks(container):
        return settle_chunks(reader, container, name)
    if container.demuxer in elements.ELEMENT_DEMUXERS:
        return elements.settle_elements(reader, container)
    if container is AMR:
        end = frames.amr_end(reader)
        return Extent(reader.select([range(end)]), min(end, reader.size), end > reader.size)
    if container in FRAMED and container is not MP3:
        runs = frames.scan_frames(reader, FRAMED[container])
        return Extent(reader.select(runs.pieces), runs.end, runs.is_cut)
    settle = _SETTLERS.get(container)
    return Extent(reader, reader.size) if settle is None else settle(reader)


_SETTLERS = {
    AU: settle_au,
    FLAC: elements.settle_flac,
    MP3: settle_mp3,
    NIST: settle_nist,
    OGG: elements.settle_ogg,
    TS: elements.settle_packets,
    TTA: settle_tta,
    VOC: settle_voc,
}
