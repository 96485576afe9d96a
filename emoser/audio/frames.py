"""MP3, ADTS AAC and AMR frame headers: where frames begin and how long they are.

These formats have no file header, or almost none. A file is accepted as one of them if one frame
header leads to the next. Decoders get nothing else, because they search any bytes for frames and
libmpg123 warns on standard error.
"""

from emoser.audio.reader import ByteReader

_RATES = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}
_KBITS_V1_L1 = (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448)
_KBITS_V1_L2 = (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384)
_KBITS_V1_L3 = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_KBITS_V2_L1 = (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256)
_KBITS_V2_L23 = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_LAYER_1, _LAYER_2, _LAYER_3 = 3, 2, 1
_SAME_STREAM = 0xFFFE0C00  # sync, version, layer and sampling rate must agree between frames
# Bytes after the header byte by frame type; 15 is a pause.
_AMR_FRAME_BYTES = {
    b"#!AMR\n": dict(enumerate((12, 13, 15, 17, 19, 20, 26, 31, 5))) | {15: 0},
    b"#!AMR-WB\n": dict(enumerate((17, 23, 32, 36, 40, 46, 50, 58, 60, 5))) | {14: 0, 15: 0},
}
_HAS_FRAMES, _HAS_BYTES = 1, 2  # flags of a Xing frame
_WINDOW_BYTES = 2**18
_MAX_PADDING = 65_536  # zero bytes between an ID3 tag and the first frame


def id3_end(reader: ByteReader) -> int:
    """Position after the ID3v2 tags and their padding at the start; 0 without a tag."""
    end = 0
    while (head := reader.read_at(end, 10))[:3] == b"ID3" and len(head) == 10:
        size = 0
        for byte in head[6:10]:  # seven bits a byte
            size = size << 7 | byte & 0x7F
        end += 10 + size + (10 if head[5] & 0x10 else 0)
    if not end:
        return 0
    padding = reader.read_at(end, _MAX_PADDING)
    return end + len(padding) - len(padding.lstrip(b"\0"))


def starts_mpeg_audio(reader: ByteReader, offset: int) -> bool:
    """Whether an MPEG audio frame begins at `offset` and is followed by another.

    A file of a single frame, 26 to 72 ms, is refused: libmpg123 warns about it.
    """
    header = reader.read_at(offset, 4)
    length = mpeg_frame_length(header)
    if length is None:
        return False
    following = reader.read_at(offset + length, 4)
    same = int.from_bytes(header, "big") ^ int.from_bytes(following, "big")
    return mpeg_frame_length(following) is not None and not same & _SAME_STREAM


def starts_adts(reader: ByteReader, offset: int) -> bool:
    """Whether an ADTS frame begins at `offset` and is followed by another, or by the end."""
    length = _adts_frame_length(reader.read_at(offset, 7))
    if length is None:
        return False
    following = reader.read_at(offset + length, 7)
    return len(following) < 7 or _adts_frame_length(following) is not None


def starts_amr(reader: ByteReader) -> bool:
    """Whether the file is AMR whose first frame is followed by another, or by the end."""
    magic = reader.read_at(0, 9).partition(b"\n")[0] + b"\n"
    sizes, position = _AMR_FRAME_BYTES.get(magic, {}), len(magic)
    for _ in range(2):
        header = reader.read_at(position, 1)
        if not header:
            break
        length = sizes.get(header[0] >> 3)
        if length is None or header[0] & 0x83:
            return False
        position += 1 + length
    return True


def mpeg_frame_length(header: bytes) -> int | None:
    """Bytes of the frame that a 4-byte MPEG audio header opens; None if it is not such a header.

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
    if layer == _LAYER_1:
        return (12 * bits // rate + padding) * 4
    samples = 72 if layer == _LAYER_3 and version != 3 else 144
    return samples * bits // rate + padding


def _kbits(version: int, layer: int) -> tuple[int, ...]:
    if version != 3:
        return _KBITS_V2_L1 if layer == _LAYER_1 else _KBITS_V2_L23
    return {_LAYER_1: _KBITS_V1_L1, _LAYER_2: _KBITS_V1_L2, _LAYER_3: _KBITS_V1_L3}[layer]


def _adts_frame_length(header: bytes) -> int | None:
    if len(header) < 7 or header[0] != 0xFF or header[1] & 0xF6 != 0xF0:
        return None
    length = (header[3] & 3) << 11 | header[4] << 3 | header[5] >> 5
    return length if length >= 7 and header[2] >> 2 & 15 < 13 else None


def settle_frame_count(reader: ByteReader) -> None:
    """Make the view begin with an information frame that is correct for libmpg123.

    Tags before the audio are removed. An existing information (Xing) frame gets the true number
    of bytes, because a shortened file would cause a warning on standard error; its declared
    number of frames is kept, which shows the loss. Without one, a frame is inserted, because
    libmpg123 would estimate the length from the first bit rate and stop there.
    """
    start = id3_end(reader)
    frame = reader.read_at(start, 64)
    tag_at = 4 + _side_info_bytes(frame)
    tag, flags = frame[tag_at : tag_at + 4], int.from_bytes(frame[tag_at + 4 : tag_at + 8], "big")
    if tag not in (b"Xing", b"Info"):
        reader.replace_head(start, _information_frame(frame, _count_frames(reader, start)))
        return
    reader.replace_head(start, b"")
    if flags & _HAS_BYTES:
        position = tag_at + 8 + (4 if flags & _HAS_FRAMES else 0)
        reader.patch(position, min(reader.size, 2**32 - 1).to_bytes(4, "big"))


def _side_info_bytes(header: bytes) -> int:
    is_version_1, is_mono = header[1] >> 3 & 3 == 3, header[3] >> 6 == 3
    if is_version_1:
        return 17 if is_mono else 32
    return 9 if is_mono else 17


def _information_frame(header: bytes, num_frames: int) -> bytes:
    """A layer III frame without sound that states the number of frames; empty for I and II."""
    if header[1] >> 1 & 3 != _LAYER_3:
        return b""
    content = bytes(_side_info_bytes(header)) + b"Xing" + _HAS_FRAMES.to_bytes(4, "big")
    content += num_frames.to_bytes(4, "big")
    for kbits_index in range(1, 15):
        # Without CRC and padding, at the lowest bit rate that has room.
        own = bytes([0xFF, header[1] | 1, kbits_index << 4 | header[2] & 0x0C, header[3]])
        length = mpeg_frame_length(own)
        if length is not None and length >= 4 + len(content):
            return (own + content).ljust(length, b"\0")
    return b""


def _count_frames(reader: ByteReader, position: int) -> int:
    """Complete frames from `position` on; what lies between frames is skipped."""
    num_frames = 0
    base, window = position, b""
    while position < reader.size:
        if position + 4 > base + len(window):
            base, window = position, reader.read_at(position, _WINDOW_BYTES)
        at = position - base
        length = mpeg_frame_length(window[at : at + 4])
        if length is None:
            following = window.find(b"\xff", at + 1)
            position = base + (following if following >= 0 else max(at + 1, len(window)))
            continue
        position += length
        num_frames += position <= reader.size
    return num_frames
