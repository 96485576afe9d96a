"""Prepare MP3 for libmpg123: whole frames of one stream behind a correct information frame."""

from emoser.audio import frames
from emoser.audio.frames import FrameRuns
from emoser.audio.reader import ByteReader, Extent, Piece

_HAS_FRAMES, _HAS_BYTES = 1, 2  # flags of a Xing frame
_XING = (b"Xing", b"Info")
_VBRI_AT = 36


def settle_mp3(reader: ByteReader) -> Extent:
    """The stream at the start, in a view that libmpg123 reads to the end and without a warning.

    Joined files have an information (Xing) frame each, and only the first is kept. It gets the
    true number of bytes and, if there are more than it declares, of frames. Without one, a frame
    is inserted, because libmpg123 would estimate the length from the first bit rate and stop
    there.
    """
    header = reader.read_at(0, 64)
    runs = frames.scan_frames(reader, frames.MPEG, _is_information)
    if header[1] >> 1 & 3 != frames.LAYER_3:
        samples = 384 if header[1] >> 1 & 3 == frames.LAYER_1 else 1152
        return Extent(reader.select(runs.pieces), runs.end, runs.is_cut, samples * runs.num_frames)
    pieces: list[Piece] = list(runs.pieces)
    if _xing_at(header):
        return _corrected(reader, runs, pieces, header)
    num_frames = runs.num_frames
    if _is_information(header):  # of Fraunhofer's kind, which libmpg123 reads at the start alone
        length = frames.mpeg_frame_length(header[:4]) or 0
        pieces[0] = range(length, runs.pieces[0].stop)
        num_frames -= 1
    pieces.insert(0, _information_frame(header, num_frames))
    return Extent(reader.select(pieces), runs.end, runs.is_cut)


def _corrected(reader: ByteReader, runs: FrameRuns, pieces: list[Piece], header: bytes) -> Extent:
    """With the information frame of the file; a shortened file has fewer frames than declared."""
    tag_at = _xing_at(header)
    flags = int.from_bytes(header[tag_at + 4 : tag_at + 8], "big")
    view, is_cut, position = reader.select(pieces), runs.is_cut, tag_at + 8
    if flags & _HAS_FRAMES:
        declared, found = (
            int.from_bytes(header[position : position + 4], "big"),
            runs.num_frames - 1,
        )
        is_cut |= found < declared
        if found > declared:
            view.patch(position, found.to_bytes(4, "big"))
        position += 4
    if flags & _HAS_BYTES:
        view.patch(position, min(view.size, 2**32 - 1).to_bytes(4, "big"))
    return Extent(view, runs.end, is_cut)


def _is_information(header: bytes) -> bool:
    return bool(_xing_at(header)) or header.startswith(b"VBRI", _VBRI_AT)


def _xing_at(header: bytes) -> int:
    """Position of an information tag in a frame; 0 if it has none."""
    place = 4 + _side_info_bytes(header)
    return place if header.startswith(_XING, place) else 0


def _side_info_bytes(header: bytes) -> int:
    is_version_1, is_mono = header[1] >> 3 & 3 == 3, header[3] >> 6 == 3
    if is_version_1:
        return 17 if is_mono else 32
    return 9 if is_mono else 17


def _information_frame(header: bytes, num_frames: int) -> bytes:
    """A layer III frame without sound that states the number of frames."""
    content = bytes(_side_info_bytes(header)) + b"Xing" + _HAS_FRAMES.to_bytes(4, "big")
    content += num_frames.to_bytes(4, "big")
    for kbits_index in range(1, 15):
        # Without CRC and padding, at the lowest bit rate that has room.
        own = bytes([0xFF, header[1] | 1, kbits_index << 4 | header[2] & 0x0C, header[3]])
        length = frames.mpeg_frame_length(own)
        if length is not None and length >= 4 + len(content):
            return (own + content).ljust(length, b"\0")
    return b""
