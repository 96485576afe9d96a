"""Correct the length that the header of a file declares, before a decoder reads it.

Reads chunk headers only. In the reader's view (never in the file) a size beyond the end is
replaced by the true one, and a size that a streaming writer left open is filled in.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass

from emoser.audio.reader import ByteReader, Extent
from emoser.audio.sniffing import (
    AIFF,
    CAF,
    CAF_ALAC,
    RF64,
    RIFX,
    SVX,
    W64,
    WAV,
    Container,
)
from emoser.errors import AudioError

# Writers that cannot seek leave the size 0 or near the largest number.
UNKNOWN_FROM = 0x7FFF_0000
_MAX_CHUNKS = 1_000
_OUTER_NAMES = (b"RIFF", b"RIFX", b"RF64", b"riff", b"FORM", b"caff")
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
    CAF_ALAC: _Layout(8, 4, ">Q", b"data", alignment=1),
    W64: _Layout(40, 16, "<Q", b"data", alignment=8, size_has_header=True),
    SVX: _Layout(12, 4, ">I", b"BODY"),
}


@dataclass(frozen=True)
class _Chunk:
    name: bytes  # four characters
    header: int
    size_at: int
    start: int
    size: int  # without the header


def settle_chunks(reader: ByteReader, container: Container, name: str) -> Extent:
    """The recording of a file of chunks, with the declared size of its data corrected.

    The data may go on in further chunks, which are joined where the decoder would stop after the
    first. Raises an AudioError if the header would overflow the decoder's arithmetic.
    """
    layout = _LAYOUTS[container]
    listed, end = _list_chunks(reader, layout, layout.first)
    # By name; of equal names the first counts.
    chunks = {chunk.name: chunk for chunk in reversed(listed)}
    data = chunks.get(layout.data_name)
    if data is None:
        return Extent(reader, reader.size)
    left = max(0, reader.size - data.start)
    declared = _declared_size(reader, container, data, chunks)
    if container in (WAV, RIFX, RF64, W64):
        _refuse_overflow(reader, layout, chunks, left, name)
    if declared is None or declared > left:
        view = reader.select([range(reader.size)])
        _patch_size(view, layout, data, left)
        return Extent(view, reader.size, declared is not None)
    if container is RF64:
        end = _list_chunks(reader, layout, data.start + declared + declared % 2)[1]
    further = [chunk for chunk in listed if chunk.name == layout.data_name][1:]
    if not further:
        return Extent(reader.select([range(end)]), end)
    if container not in (WAV, RIFX):
        return Extent(reader.select([range(further[0].header)]), end, is_cut=True)
    parts = [range(chunk.start, min(chunk.start + chunk.size, end)) for chunk in further]
    view = reader.select([range(data.start + data.size), *parts])
    _patch_size(view, layout, data, view.size - data.start)
    return Extent(view, end, further[-1].start + further[-1].size > reader.size)


def _list_chunks(reader: ByteReader, layout: _Layout, position: int) -> tuple[list[_Chunk], int]:
    """The chunks, and the position after them.

    They end where a file begins that was appended, or where no chunk follows.
    """
    chunks = list[_Chunk]()
    while len(chunks) < _MAX_CHUNKS:
        chunk = _chunk_at(reader, layout, position)
        if chunk is None and layout.alignment == 2 and chunks and chunks[-1].size % 2:
            chunk = _chunk_at(reader, layout, position - 1)  # some writers do not pad to two bytes
        if chunk is None or (chunks and chunk.name in _OUTER_NAMES):
            break
        chunks.append(chunk)
        stop = chunk.start + chunk.size
        position = -(-stop // layout.alignment) * layout.alignment
    return chunks, min(position, reader.size)


def _chunk_at(reader: ByteReader, layout: _Layout, position: int) -> _Chunk | None:
    size_bytes = struct.calcsize(layout.size_code)
    header_bytes = layout.name_bytes + size_bytes
    header = reader.read_at(position, header_bytes)
    if len(header) < header_bytes or not all(32 <= byte < 127 for byte in header[:4]):
        return None
    (size,) = struct.unpack(layout.size_code, header[layout.name_bytes :])
    size = max(0, size - header_bytes) if layout.size_has_header else size
    start = position + header_bytes
    if start + size > reader.size and header[:4] not in (layout.data_name, b"LIST"):
        return None
    return _Chunk(header[:4], position, position + layout.name_bytes, start, size)


def _declared_size(
    reader: ByteReader, container: Container, data: _Chunk, chunks: Mapping[bytes, _Chunk]
) -> int | None:
    """Bytes of data according to the header; None where it leaves them open."""
    ds64 = chunks.get(b"ds64")
    if container is RF64 and ds64 is not None and data.size == 0xFFFF_FFFF:
        (size,) = struct.unpack("<Q", reader.read_at(ds64.start + 8, 8).ljust(8, b"\0"))
        return int(size)
    if container in (CAF, CAF_ALAC, W64):
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


def settle_au(reader: ByteReader) -> Extent:
    """The recording of an AU file, whose header may leave its size open."""
    start, size = struct.unpack(">II", reader.read_at(4, 8).ljust(8, b"\0"))
    if size >= UNKNOWN_FROM or start + size > reader.size:
        return Extent(reader, reader.size, size < UNKNOWN_FROM)
    return Extent(reader.select([range(start + size)]), start + size)


def settles_chunks(container: Container) -> bool:
    """Whether a container is made of chunks as RIFF is."""
    return container in _LAYOUTS
