"""Frames of MP3, AAC, AMR and AC-3: where they begin, how long they are, and what is lost between.

These formats have no file header, or almost none. A file is accepted as one of them if one frame
leads to the next. Decoders get whole frames and nothing else, because they search any bytes for
frames and libmpg123 warns on standard error about what it finds between them.
"""

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from emoser.audio.reader import ByteReader

_RATES = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}
_KBITS_V1_L1 = (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448)
_KBITS_V1_L2 = (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384)
_KBITS_V1_L3 = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_KBITS_V2_L1 = (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256)
_KBITS_V2_L23 = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_KBITS_AC3 = (
    32,
    40,
    48,
    56,
    64,
    80,
    96,
    112,
    128,
    160,
    192,
    224,
    256,
    320,
    384,
    448,
    512,
    576,
    640,
)
LAYER_1, LAYER_2, LAYER_3 = 3, 2, 1
# Bytes after the header byte by frame type; 15 is a pause.
_AMR_FRAME_BYTES = {
    b"#!AMR\n": dict(enumerate((12, 13, 15, 17, 19, 20, 26, 31, 5))) | {15: 0},
    b"#!AMR-WB\n": dict(enumerate((17, 23, 32, 36, 40, 46, 50, 58, 60, 5))) | {14: 0, 15: 0},
}
_WINDOW_BYTES = 2**18
_BLANK_BYTES = 65_536  # read at a time
_MAX_PIECES = 10_000  # runs of frames in a file; what follows more damage is left out
_PATTERN_BYTES = 2  # a pattern of three begins at most so far before the end of a window
_MAX_TRIES = 100_000  # places that look like a frame and lead to no other
_MAX_TAGS = 100  # one behind the other
_MARGIN_BYTES = 2**15  # of a window behind what is found in it; four frames of MP3 fit
_NUM_SEARCHED = 4  # frames in a row where the beginning is searched for
_BLANK = b"\0\t\n\r "
_TAGS = (b"TAG", b"ID3", b"APETAGEX")


@dataclass(frozen=True)
class FrameKind:
    """How the frames of a format are recognised.

    Attributes:
        header_bytes: Bytes of the header.
        length: Bytes of the frame that a header opens; None if it is not such a header.
        stream: What is equal in the headers of one stream, such as the sampling rate.
        least: Frames that must follow each other; fewer only if the file ends after them.
        sync: What the first bytes look like.
    """

    header_bytes: int
    length: Callable[[bytes], int | None]
    stream: Callable[[bytes], object]
    least: int
    sync: re.Pattern[bytes]


@dataclass(frozen=True)
class FrameRuns:
    """The frames of one stream.

    Attributes:
        pieces: Their positions, a range for each run without a gap.
        num_frames: Number of complete frames.
        end: Position after the last of them and what is lost behind it.
        is_cut: Whether sound is lost between them, or the last one is incomplete.
    """

    pieces: list[range]
    num_frames: int
    end: int
    is_cut: bool


class _Headers:
    """Headers at increasing positions, read in windows."""

    def __init__(self, reader: ByteReader) -> None:
        self._reader = reader
        self._start, self._window = 0, b""

    def at(self, position: int, size: int) -> bytes:
        """Up to `size` bytes at a position."""
        offset = position - self._start
        if offset < 0 or offset + size > len(self._window):
            self._start, offset = position, 0
            self._window = self._reader.read_at(position, _WINDOW_BYTES)
        return self._window[offset : offset + size]

    def find(self, sync: re.Pattern[bytes], position: int) -> int:
        """The next position of a pattern; the size of the file if there is none."""
        while position < self._reader.size:
            self.at(position, min(_MARGIN_BYTES, self._reader.size - position))
            found = sync.search(self._window, position - self._start)
            if found is not None:
                return self._start + found.start()
            position = max(position + 1, self._start + len(self._window) - _PATTERN_BYTES)
        return self._reader.size


def tags_end(reader: ByteReader, start: int) -> int:
    """Position after the tags (ID3, APE, Lyrics3) and the padding at `start`."""
    end = blank_end(reader, start)
    for _ in range(_MAX_TAGS):
        length = _tag_bytes(reader.read_at(end, 32))
        if not length or end >= reader.size:
            break
        end = blank_end(reader, end + length)
    return min(end, reader.size)


def _tag_bytes(head: bytes) -> int:
    """Length of the tag that begins with these bytes; 0 if it is not one."""
    if head.startswith(b"ID3") and len(head) >= 10:
        size = 0
        for byte in head[6:10]:  # seven bits a byte
            size = size << 7 | byte & 0x7F
        return 10 + size + (10 if head[5] & 0x10 else 0)
    if head.startswith(b"APETAGEX") and len(head) == 32:
        return 32 + (int.from_bytes(head[12:16], "little") if head[23] & 0x20 else 0)
    return 227 if head.startswith(b"TAG+") else 128 if head.startswith(b"TAG") else 0


def blank_end(reader: ByteReader, start: int) -> int:
    """Position after the zero bytes and white space at `start`."""
    end = start
    while data := reader.read_at(end, _BLANK_BYTES):
        stripped = data.lstrip(_BLANK)
        end += len(data) - len(stripped)
        if stripped:
            break
    return end


def is_tag(data: bytes) -> bool:
    """Whether bytes between recordings are a tag, padding or a text, and not sound.

    Erased memory, which recorders leave behind a file, is 0xFF.

    Example:
        >>> is_tag(b"TAG Song"), is_tag(bytes(99)), is_tag(bytes.fromhex("01a2b3c4"))
        (True, True, False)
    """
    data = data.strip(_BLANK)
    return data.startswith(_TAGS) or _is_text(data) or not data.strip(b"\xff")


def ends_with_tag(reader: ByteReader) -> bool:
    """Whether the last bytes are a tag, padding or a text."""
    tail = reader.read_at(max(0, reader.size - 128), 128)
    return tail.startswith(b"TAG") or b"APETAGEX" in tail[-32:] or is_tag(tail[-16:])


def _is_text(data: bytes) -> bool:
    return all(32 <= byte < 127 or byte in _BLANK for byte in data)


def starts_frames(reader: ByteReader, start: int, kind: FrameKind) -> bool:
    """Whether frames of this kind begin at `start`, one after the other."""
    return _follow(_Headers(reader), start, kind, kind.least, reader.size)


def find_frames(data: bytes, kind: FrameKind) -> int | None:
    """Where frames of this kind begin in bytes; None if nowhere."""
    headers = _Headers(ByteReader(io.BytesIO(data)))
    position = headers.find(kind.sync, 0)
    while position < len(data):
        if _follow(headers, position, kind, _NUM_SEARCHED, 0):
            return position
        position = headers.find(kind.sync, position + 1)
    return None


def _follow(headers: _Headers, start: int, kind: FrameKind, least: int, size: int) -> bool:
    """Whether `least` frames of one stream follow each other, or fewer to the end at `size`."""
    position, stream = start, None
    for number in range(least):
        header = headers.at(position, kind.header_bytes)
        if number and position == size:
            return kind is not MPEG or number > 1
        length = kind.length(header)
        if length is None or (number and kind.stream(header) != stream):
            return False
        stream = kind.stream(header)
        position += length
    return True


def scan_frames(
    reader: ByteReader, kind: FrameKind, is_empty: Callable[[bytes], bool] = lambda header: False
) -> FrameRuns:
    """The frames of the stream that begins at the start, to the end of the file or of the stream.

    Bytes between the frames, incomplete frames and frames that `is_empty` are left out.
    """
    headers, pieces = _Headers(reader), list[range]()
    start = position = num_frames = 0
    stream = kind.stream(headers.at(0, kind.header_bytes))
    is_cut = False
    while True:
        header = headers.at(position, kind.header_bytes)
        length = kind.length(header)
        if length is not None and kind.stream(header) == stream:
            following = position + length
            if following > reader.size:
                return FrameRuns([*pieces, range(start, position)], num_frames, reader.size, True)
            if num_frames and is_empty(header):
                pieces.append(range(start, position))
                start = following
            else:
                num_frames += 1
            position = following
            continue
        pieces.append(range(start, position))
        start = _next_frames(headers, position, kind, reader.size)
        if start == reader.size or len(pieces) >= _MAX_PIECES:
            return FrameRuns(pieces, num_frames, position, is_cut)
        if kind.stream(headers.at(start, kind.header_bytes)) != stream:
            return FrameRuns(pieces, num_frames, position, is_cut)
        is_cut = is_cut or not is_tag(reader.read_at(position, min(start - position, 4096)))
        position = start


def _next_frames(headers: _Headers, start: int, kind: FrameKind, size: int) -> int:
    """Where frames go on, at `start` or after it; the size of the file if nowhere."""
    position = headers.find(kind.sync, start)
    for _ in range(_MAX_TRIES):
        if position >= size or _follow(headers, position, kind, 2, size):
            return position
        position = headers.find(kind.sync, position + 1)
    return size


def starts_amr(reader: ByteReader, start: int) -> bool:
    """Whether it is AMR whose first frame is followed by another, or by the end."""
    lengths, position = _amr_lengths(reader.read_at(start, 9)), start
    for _ in range(3):
        if position > start and not reader.read_at(position, 1):
            break
        length = _amr_step(reader.read_at(position, 9), lengths, position == start)
        if length is None:
            return False
        position += length
    return bool(lengths)


def amr_end(reader: ByteReader) -> int:
    """Position after the frames of an AMR file; beyond its end if the last is incomplete."""
    headers, position = _Headers(reader), 0
    lengths = _amr_lengths(headers.at(0, 9))
    while position < reader.size:
        length = _amr_step(headers.at(position, 9), lengths, position == 0)
        if length is None:
            break
        position += length
    return position


def _amr_lengths(head: bytes) -> dict[int, int]:
    return _AMR_FRAME_BYTES.get(head.partition(b"\n")[0] + b"\n", {})


def _amr_step(head: bytes, lengths: dict[int, int], is_first: bool) -> int | None:
    if is_first:
        return len(head.partition(b"\n")[0]) + 1
    length = lengths.get(head[0] >> 3)
    return None if length is None or head[0] & 0x83 else 1 + length


@lru_cache(4096)
def mpeg_frame_length(header: bytes) -> int | None:
    """Bytes of the frame that an MPEG audio header opens; None if it is not such a header.

    Example:
        >>> mpeg_frame_length(bytes.fromhex("fffb9064"))
        417
    """
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE0 != 0xE0:
        return None
    version, layer = header[1] >> 3 & 3, header[1] >> 1 & 3
    kbits_index, rate_index, padding = header[2] >> 4, header[2] >> 2 & 3, header[2] >> 1 & 1
    if version == 1 or layer == 0 or rate_index == 3 or not 1 <= kbits_index <= 14:
        return None
    bits = 1000 * _kbits(version, layer)[kbits_index - 1]
    rate = _RATES[version][rate_index]
    if layer == LAYER_1:
        return (12 * bits // rate + padding) * 4
    samples = 72 if layer == LAYER_3 and version != 3 else 144
    return samples * bits // rate + padding


def mpeg_sampling_rate(header: bytes) -> int:
    """Sampling rate in Hz of an MPEG audio frame."""
    return _RATES[header[1] >> 3 & 3][header[2] >> 2 & 3]


def _kbits(version: int, layer: int) -> tuple[int, ...]:
    if version != 3:
        return _KBITS_V2_L1 if layer == LAYER_1 else _KBITS_V2_L23
    return {LAYER_1: _KBITS_V1_L1, LAYER_2: _KBITS_V1_L2, LAYER_3: _KBITS_V1_L3}[layer]


def _mpeg_stream(header: bytes) -> object:
    """Version, layer, sampling rate, and whether it is mono."""
    return header[1] & 0xFE, header[2] & 0x0C, header[3] >> 6 == 3


def _adts_frame_length(header: bytes) -> int | None:
    if len(header) < 7 or header[0] != 0xFF or header[1] & 0xF6 != 0xF0:
        return None
    length = (header[3] & 3) << 11 | header[4] << 3 | header[5] >> 5
    return length if length >= 7 and header[2] >> 2 & 15 < 13 else None


def _adts_stream(header: bytes) -> object:
    """Version, sampling rate, and the configuration of channels."""
    return header[1] & 8, header[2] & 0x3D, header[3] & 0xC0


def _latm_frame_length(header: bytes) -> int | None:
    if len(header) < 3 or header[0] != 0x56 or header[1] & 0xE0 != 0xE0:
        return None
    return 3 + ((header[1] & 0x1F) << 8 | header[2])


def _ac3_frame_length(header: bytes) -> int | None:
    if len(header) < 6 or header[:2] != b"\x0bw" or header[5] >> 3 > 10:
        return None
    rate_index, size = header[4] >> 6, header[4] & 0x3F
    if rate_index == 3 or size >= 2 * len(_KBITS_AC3):
        return None
    kbits = _KBITS_AC3[size // 2]
    return 2 * (kbits * 2, kbits * 96_000 // 44_100 + size % 2, kbits * 3)[rate_index]


def _eac3_frame_length(header: bytes) -> int | None:
    if len(header) < 6 or header[:2] != b"\x0bw" or not 10 < header[5] >> 3 <= 16:
        return None
    return 2 * (((header[2] & 7) << 8 | header[3]) + 1)


def _mpeg_length(header: bytes) -> int | None:
    return mpeg_frame_length(header[:4])


# The third byte has neither a free nor a forbidden bit rate, unlike erased memory of 0xFF.
_MPEG_SYNC = re.compile(rb"\xff[\xe2-\xff][\x10-\xef]", re.DOTALL)
_AC3_SYNC = re.compile(rb"\x0b\x77")
# A file of a single MPEG frame, 26 to 72 ms, is refused. 40 bytes reach an information tag.
MPEG = FrameKind(40, _mpeg_length, _mpeg_stream, 2, _MPEG_SYNC)
ADTS = FrameKind(7, _adts_frame_length, _adts_stream, 2, re.compile(rb"\xff[\xf0\xf1\xf8\xf9]"))
LATM = FrameKind(
    3, _latm_frame_length, lambda header: header[0], 3, re.compile(rb"\x56[\xe0-\xff]")
)
AC3 = FrameKind(6, _ac3_frame_length, lambda header: header[4] & 0xC0, 2, _AC3_SYNC)
EAC3 = FrameKind(6, _eac3_frame_length, lambda header: header[4] & 0xC0, 2, _AC3_SYNC)
