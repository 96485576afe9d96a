"""The length that NIST SPHERE, VOC and TTA files declare."""

import re
import struct

from emoser.audio.reader import ByteReader, Extent

_NIST_COUNTS = ("sample_count", "channel_count", "sample_n_bytes")
_MAX_TTA_FRAMES = 100_000  # of about a second
_VOC_SOUND = (1, 9)  # kinds of block; 2 continues one
_VOC_CONTINUED, _VOC_SILENCE = 2, 3


def settle_nist(reader: ByteReader) -> Extent:
    """A SPHERE file, whose header states the number of samples."""
    header = reader.read_at(0, 1024)
    start = int(header[8:16]) if header[8:16].strip().isdigit() else 1024
    counts = [re.search(rf"{name} -i (\d+)".encode(), header) for name in _NIST_COUNTS]
    size = 1
    for count in counts:
        size *= int(count[1]) if count else 0
    if not size:
        return Extent(reader, reader.size)
    end = start + size
    return Extent(reader.select([range(end)]), min(end, reader.size), end > reader.size)


def settle_voc(reader: ByteReader) -> Extent:
    """A VOC file; libsndfile decodes one block of sound, and further ones are missing."""
    position, num_sounds = int.from_bytes(reader.read_at(20, 2), "little"), 0
    while position < reader.size:
        header = reader.read_at(position, 4)
        if not header[0]:  # the end
            position += 1
            break
        num_sounds += header[0] in (*_VOC_SOUND, _VOC_CONTINUED, _VOC_SILENCE)
        position += 4 + int.from_bytes(header[1:4], "little")
    is_cut = position > reader.size or num_sounds > 1
    return Extent(reader, min(position, reader.size), is_cut)


def settle_tta(reader: ByteReader) -> Extent:
    """A TTA file, whose table lists the lengths of its frames."""
    rate, num_samples = struct.unpack("<II", reader.read_at(10, 8).ljust(8, b"\0"))
    num_frames = -(-num_samples // max(1, 256 * rate // 245))
    table = reader.read_at(22, 4 * min(num_frames, _MAX_TTA_FRAMES))
    lengths = struct.unpack(f"<{len(table) // 4}I", table[: len(table) // 4 * 4])
    end = 22 + 4 * num_frames + 4 + sum(lengths)
    return Extent(reader.select([range(end)]), min(end, reader.size), end > reader.size)
