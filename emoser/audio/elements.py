"""Where a recording ends in a file of pages, boxes, tags or packets, and whether one is cut.

Reads the headers of elements only. FFmpeg and libsndfile stop at the end of a file, and some at
the end of its first part, without a word about what is missing or follows.
"""

from collections.abc import Callable

from emoser.audio.frames import is_tag
from emoser.audio.reader import ByteReader, Extent
from emoser.audio.sniffing import Container

_PAGE_BYTES = 27  # of the header of an Ogg page, without its table
_FIRST_PAGE, _LAST_PAGE = 2, 4  # flags of an Ogg page
_SOUND = (b"\x01vorbis", b"OpusHead", b"\x7fFLAC", b"Speex   ")
_FLAC_START = (b'fLaC\0\0\0"', b'fLaC\x80\0\0"')
_SEARCH_BYTES = 2**20
_GAP_BYTES = 4_096  # a text as long as this is no sound
_MAX_ELEMENTS = 4_000_000  # of ten hours of video; more would be there to waste time
_TAIL_PACKETS = 4_096  # of MPEG-TS
_SOUND_STARTS = tuple(bytes((0, 0, 1, name)) for name in (0xBD, *range(0xC0, 0xE0)))
_EBML, _SEGMENT, _CLUSTER = 0x1A45DFA3, 0x18538067, 0x1F43B675


def settle_flac(reader: ByteReader) -> Extent:
    """A FLAC file up to the next one; its declared length is left open.

    libFLAC stops at the declared length even if more follows.
    """
    end, position = reader.size, 4
    while position < reader.size:
        data = reader.read_at(position, _SEARCH_BYTES)
        found = [place for start in _FLAC_START if (place := data.find(start)) >= 0]
        if found:
            end = position + min(found)
            break
        position += max(1, len(data) - 7)
    view = reader.select([range(end)])
    total = int.from_bytes(reader.read_at(18, 8), "big")
    declared = total % 2**36
    view.patch(18, (total - declared).to_bytes(8, "big"))
    return Extent(view, end, num_frames=declared or None)


def settle_ogg(reader: ByteReader) -> Extent:
    """The first link of an Ogg file.

    Pages that are damaged, missing, incomplete or not followed by the last one mean a cut, and so
    do further streams of sound, since one is decoded.
    """
    walk = _OggWalk(reader)
    position = 0
    for _ in range(_MAX_ELEMENTS):
        following = walk.step(position) if position < reader.size else None
        if following is None:
            break
        position = following
    is_cut = walk.is_cut or not walk.has_last or walk.num_sounds > 1
    return Extent(reader.select([range(position)]), position, is_cut)


class _OggWalk:
    """Goes through the pages of one link, in which all streams begin together."""

    def __init__(self, reader: ByteReader) -> None:
        self._reader = reader
        self._numbers: dict[bytes, int] = {}  # of the last page of each stream
        self._is_past_start = False
        self.num_sounds = 0
        self.is_cut = False
        self.has_last = False

    def step(self, position: int) -> int | None:
        """Position after a page; None at the end of the link."""
        header = self._reader.read_at(position, _PAGE_BYTES + 255 + 8)
        if not header.startswith(b"OggS\0"):
            return self._resume(position)
        num_segments = header[26] if len(header) >= _PAGE_BYTES else 255
        table = header[_PAGE_BYTES : _PAGE_BYTES + num_segments]
        following = position + _PAGE_BYTES + num_segments + sum(table)
        if len(table) < num_segments or following > self._reader.size:
            self.is_cut = True
            return self._reader.size
        is_first = bool(header[5] & _FIRST_PAGE)
        if is_first and self._is_past_start:
            return None
        self._is_past_start = not is_first
        self._count(header, is_first)
        self.num_sounds += is_first and header.startswith(_SOUND, _PAGE_BYTES + num_segments)
        return following

    def _count(self, header: bytes, is_first: bool) -> None:
        serial, number = header[14:18], int.from_bytes(header[18:22], "little")
        if is_first or serial in self._numbers:
            self.is_cut |= number > self._numbers.get(serial, number) + 1
            self._numbers[serial] = number
        self.has_last = self.has_last or bool(header[5] & _LAST_PAGE)

    def _resume(self, position: int) -> int | None:
        """The next page after bytes that belong to none; None if there is no other."""
        start = position
        while data := self._reader.read_at(position, _SEARCH_BYTES):
            found = data.find(b"OggS\0")
            if found >= 0:
                gap = min(position + found - start, _GAP_BYTES)
                self.is_cut |= not is_tag(self._reader.read_at(start, gap))
                return position + found
            position += max(1, len(data) - 4)
        return None


def settle_elements(reader: ByteReader, container: Container) -> Extent:
    """The recording of a file of elements, up to where they end or another file begins."""
    length_at = _LENGTHS[container.demuxer]
    position = 0
    for _ in range(_MAX_ELEMENTS):
        length = length_at(reader, position) if position < reader.size else None
        if not length:
            break
        position += length
    end = min(position, reader.size)
    return Extent(reader.select([range(end)]), end, position > reader.size)


def _box_length(reader: ByteReader, position: int) -> int | None:
    """Bytes of an MP4 box; None before a second file, or where there is no box."""
    header = reader.read_at(position, 16)
    name = header[4:8]
    if len(name) < 4 or not all(32 <= byte < 127 or byte == 0xA9 for byte in name):
        return None
    size = int.from_bytes(header[:4], "big")
    if name == b"ftyp" and position:
        return None
    if size == 0:
        return reader.size - position
    if size == 1:
        size = int.from_bytes(header[8:16], "big")
        return size if size >= 16 else None
    return size if size >= 8 else None


def _ebml_length(reader: ByteReader, position: int) -> int | None:
    """Bytes of an EBML element, or of its header where its end is not declared."""
    header = reader.read_at(position, 12)
    id_bytes = _leading_zeros(header[:1]) + 1
    if len(header) < 2 or id_bytes > 4:
        return None
    name, header = int.from_bytes(header[:id_bytes], "big"), header[id_bytes:]
    size_bytes = _leading_zeros(header[:1]) + 1
    if len(header) < size_bytes or size_bytes > 8 or (name == _EBML and position):
        return None
    largest = (1 << 7 * size_bytes) - 1
    size = int.from_bytes(header[:size_bytes], "big") & largest
    if size == largest:  # left open by a live writer; what it holds follows
        return id_bytes + size_bytes if name in (_SEGMENT, _CLUSTER) else None
    return id_bytes + size_bytes + size


def _leading_zeros(byte: bytes) -> int:
    return 8 - byte[0].bit_length() if byte else 8


def _asf_length(reader: ByteReader, position: int) -> int | None:
    header = reader.read_at(position, 24)
    if len(header) < 24 or (position and header.startswith(bytes.fromhex("3026b2758e66cf11"))):
        return None
    size = int.from_bytes(header[16:], "little")
    if header.startswith(bytes.fromhex("3626b2758e66cf11")) and size < 50:  # live data
        return reader.size - position
    return size if size >= 24 else None


def _flv_length(reader: ByteReader, position: int) -> int | None:
    header = reader.read_at(position, 11)
    if not position:
        return int.from_bytes(header[5:9], "big") + 4
    if len(header) < 11:
        return 11 if header[:1] in (b"\x08", b"\x09", b"\x12") else None
    return 15 + int.from_bytes(header[1:4], "big") if header[0] & 0x1F in (8, 9, 18) else None


def _avi_length(reader: ByteReader, position: int) -> int | None:
    header = reader.read_at(position, 12)
    if not header.startswith(b"RIFF") or (position and header[8:12] != b"AVIX"):
        return None
    size = int.from_bytes(header[4:8], "little")
    return size + 8 + size % 2 if size else reader.size - position


def _wavpack_length(reader: ByteReader, position: int) -> int | None:
    header = reader.read_at(position, 32)
    if not header.startswith(b"wvpk") or len(header) < 8:
        return None
    is_first = header[16:20] == bytes(4) and int.from_bytes(header[24:28], "little") & 0x800
    if position and is_first and int.from_bytes(header[20:24], "little"):
        return None
    return 8 + int.from_bytes(header[4:8], "little")


def settle_packets(reader: ByteReader) -> Extent:
    """An MPEG-TS file, cut if its last packet or the last of its sound is incomplete."""
    size = 188 if reader.read_at(188, 1) == b"G" else 192
    tail = max(0, reader.size // size - _TAIL_PACKETS) * size
    data, missing = reader.read_at(tail, _TAIL_PACKETS * size), dict[bytes, int]()
    for start in range(size - 188, len(data) - 187, size):
        packet = data[start : start + 188]
        stream, payload = bytes((packet[1] & 0x1F, packet[2])), _ts_payload(packet)
        if packet[1] & 0x40 and payload.startswith(_SOUND_STARTS):
            length = int.from_bytes(payload[4:6], "big")  # 0 leaves it open
            missing[stream] = length + 6 if length else 0
        if stream in missing:
            missing[stream] -= len(payload)
    is_cut = reader.size % size > 0 or any(count > 0 for count in missing.values())
    return Extent(reader, reader.size, is_cut)


def _ts_payload(packet: bytes) -> bytes:
    if not packet[3] & 0x10:
        return b""
    return packet[5 + packet[4] :] if packet[3] & 0x20 else packet[4:]


_LENGTHS: dict[str, Callable[[ByteReader, int], int | None]] = {
    "mov": _box_length,
    "matroska": _ebml_length,
    "asf": _asf_length,
    "flv": _flv_length,
    "avi": _avi_length,
    "wv": _wavpack_length,
}
ELEMENT_DEMUXERS = frozenset(_LENGTHS)
