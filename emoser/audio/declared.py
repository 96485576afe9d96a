"""Correct the length that the header of a file declares, before a decoder reads it.

Reads chunk headers only. In the reader's view (never in the file) a size beyond the end is
replaced by the true one, and a size that a streaming writer left open is filled in.
"""

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from emoser.audio import frames
from emoser.audio.reader import ByteReader
from emoser.audio.sniffing import AIFF, AU, CAF, MP3, OGG, RF64, RIFX, W64, WAV, Container
from emoser.errors import AudioError

# Writers that cannot seek leave the size 0 or near the largest number.
UNKNOWN_FROM = 0x7FFF_0000
_MAX_CHUNKS = 1_000
_OGG_TAIL_BYTES = 131_072  # two of the largest pages
_ADPCM_TAGS = (0x0002, 0x0011)  # Microsoft, IMA


@dataclass(frozen=True)
class _Layout:
    """How a family of files writes its chunks."""

    first: int  # position of the first chunk
    name_bytes: int
    size_code: str
    data_name: bytes
    alignment: int = 2
    size_has_header: bool = False


_WAV = _Layout(12, 4, "<I", b"data")
_LAYOUTS = {
    WAV: _WAV,
    RF64: _WAV,
    RIFX: _Layout(12, 4, ">I", b"data"),
    AIFF: _Layout(12, 4, ">I", b"SSND"),
    CAF: _Layout(8, 4, ">Q", b"data", alignment=1),
    W64: _Layout(40, 16, "<Q", b"data", alignment=8, size_has_header=True),
}


@dataclass(frozen=True)
class _Chunk:
    name: bytes  # four characters
    size_at: int
    start: int
    size: int  # without the header


def settle_declared_size(reader: ByteReader, container: Container, name: str) -> bool:
    """Correct the declared size in the view; True if data are missing at the end.

    Raises an AudioError if the header would overflow the decoder's arithmetic.
    """
    if container is OGG:
        return _ogg_is_cut(reader)
    if container is AU:
        return _au_is_cut(reader)
    if container in _LAYOUTS:
        return _settle_chunks(reader, container, name)
    if container is MP3:
        frames.settle_frame_count(reader)
    return False


def _settle_chunks(reader: ByteReader, container: Container, name: str) -> bool:
    layout = _LAYOUTS[container]
    # By name; of equal names the first counts.
    chunks = {chunk.name: chunk for chunk in reversed(list(_chunks(reader, layout)))}
    data = chunks.get(layout.data_name)
    if data is None:
        return False
    left = max(0, reader.size - data.start)
    declared = _declared_size(reader, container, data, chunks)
    if container in (WAV, RIFX, RF64, W64):
        _refuse_overflow(reader, layout, chunks, left, name)
    if declared is None or declared > left:
        _patch_size(reader, layout, data, left)
    return declared is not None and declared > left


def _chunks(reader: ByteReader, layout: _Layout) -> Iterator[_Chunk]:
    """The chunks up to the data, or past it when the data end inside the file."""
    position = layout.first
    size_bytes = struct.calcsize(layout.size_code)
    header_bytes = layout.name_bytes + size_bytes
    for _ in range(_MAX_CHUNKS):
        header = reader.read_at(position, header_bytes)
        if len(header) < header_bytes:
            return
        (size,) = struct.unpack(layout.size_code, header[layout.name_bytes :])
        size = max(0, size - header_bytes) if layout.size_has_header else size
        start = position + header_bytes
        yield _Chunk(header[:4], position + layout.name_bytes, start, size)
        if header[:4] == layout.data_name:
            return
        position = -(-(start + size) // layout.alignment) * layout.alignment


def _declared_size(
    reader: ByteReader, container: Container, data: _Chunk, chunks: Mapping[bytes, _Chunk]
) -> int | None:
    """Bytes of data according to the header; None where it leaves them open."""
    ds64 = chunks.get(b"ds64")
    if container is RF64 and ds64 is not None and data.size == 0xFFFF_FFFF:
        (size,) = struct.unpack("<Q", reader.read_at(ds64.start + 8, 8).ljust(8, b"\0"))
        return int(size)
    if container in (CAF, W64):
        return None if data.size >= 2**63 - 1 else data.size
    if data.size >= UNKNOWN_FROM:
        return None
    if data.size == 0 and container in (WAV, RIFX):
        code = _LAYOUTS[container].size_code
        (whole,) = struct.unpack(code, reader.read_at(4, 4))
        return None if whole <= data.start or whole >= UNKNOWN_FROM else 0
    return data.size


def _patch_size(reader: ByteReader, layout: _Layout, data: _Chunk, size: int) -> None:
    size += data.start - data.size_at + layout.name_bytes if layout.size_has_header else 0
    largest = 256 ** struct.calcsize(layout.size_code) - 1
    reader.patch(data.size_at, struct.pack(layout.size_code, min(size, largest)))


def _refuse_overflow(
    reader: ByteReader, layout: _Layout, chunks: Mapping[bytes, _Chunk], left: int, name: str
) -> None:
    """ADPCM headers whose blocks times samples pass 2**31 overflow libsndfile up to 1.2.2."""
    fmt = chunks.get(b"fmt ")
    body = reader.read_at(fmt.start, 20) if fmt is not None else b""
    if len(body) < 20:
        return
    code = layout.size_code[0] + "HHIIHHHH"
    tag, _, _, _, block_bytes, _, _, block_samples = struct.unpack(code, body)
    if tag not in _ADPCM_TAGS:
        return
    if not block_bytes or (left // block_bytes + 1) * block_samples >= 2**31:
        raise AudioError(
            f"{name} claims ADPCM blocks of {block_bytes} bytes with {block_samples} samples each, "
            "which is impossible; the header is damaged or hostile"
        )


def _au_is_cut(reader: ByteReader) -> bool:
    start, size = struct.unpack(">II", reader.read_at(4, 8).ljust(8, b"\0"))
    return bool(size < UNKNOWN_FROM and start + size > reader.size)


def _ogg_is_cut(reader: ByteReader) -> bool:
    """Whether the last page is incomplete or not marked as the last."""
    tail = reader.read_at(max(0, reader.size - _OGG_TAIL_BYTES), _OGG_TAIL_BYTES)
    page = tail[max(0, tail.rfind(b"OggS\0")) :]
    if len(page) < 27 or len(page) < 27 + page[26]:
        return True
    page_bytes = 27 + page[26] + sum(page[27 : 27 + page[26]])
    return len(page) < page_bytes or not page[5] & 4
