"""Identify the container of a file by its first bytes, or describe what the file looks like.

An allow-list: a format that is not listed here is not decoded, whatever the file extension.
"""

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, TypeAlias

from emoser.audio import frames
from emoser.audio.reader import ByteReader
from emoser.errors import AudioError

HEAD_BYTES = 512
SEARCH_BYTES = 2**20  # searched for frames; a cover picture in a tag can be this long
_NUM_PACKETS = 5  # of MPEG-TS, in a row

_Magic: TypeAlias = bytes | tuple[bytes, ...]


@dataclass(frozen=True)
class Container:
    """A container format that is decoded.

    Attributes:
        label: Its name in messages.
        suffixes: The file suffixes that it goes by.
        demuxer: FFmpeg's name of its demuxer; empty where libsndfile decodes it.
        fallback: The same, for codings of it that libsndfile does not know.
    """

    label: str
    suffixes: tuple[str, ...] = ()
    demuxer: str = ""
    fallback: str = ""


WAV = Container("WAV", (".wav", ".wave", ".bwf"), fallback="wav")
RIFX = Container("RIFX")
RF64 = Container("RF64", (".rf64",))
W64 = Container("W64", (".w64",), fallback="w64")
AIFF = Container("AIFF", (".aif", ".aiff", ".aifc"), fallback="aiff")
CAF = Container("CAF", (".caf",), fallback="caf")
# libsndfile's ALAC decoder prints to standard output and fills up shortened files with noise.
CAF_ALAC = Container("CAF with ALAC", demuxer="caf")
AU = Container("AU", (".au", ".snd"), fallback="au")
FLAC = Container("FLAC", (".flac",))
OGG = Container("Ogg", (".ogg", ".oga", ".opus", ".spx", ".ogv"), fallback="ogg")
MP3 = Container("MP3", (".mp3", ".mp2", ".mp1", ".mpga", ".mpa", ".m2a"))
NIST, VOC = Container("NIST SPHERE", (".sph", ".nist")), Container("VOC", (".voc",))
SVX, PVF = Container("SVX", (".svx", ".8svx", ".iff")), Container("PVF", (".pvf",))
PAF, AVR = Container("PAF", (".paf",)), Container("AVR", (".avr",))
WVE, HTK = Container("WVE", (".wve",)), Container("HTK", (".htk",))
_MP4_SUFFIXES = ".mp4 .m4a .m4b .m4r .m4v .mov .qt .3gp .3gpp .3ga .3g2 .3gpp2 .f4a .f4v"
MP4 = Container("MP4/M4A", tuple(_MP4_SUFFIXES.split()), "mov")
WEBM = Container("WebM/Matroska", (".webm", ".weba", ".mkv", ".mka", ".mk3d"), "matroska")
AAC, LATM = (
    Container("AAC", (".aac", ".adts"), "aac"),
    Container("AAC (LATM)", (".loas", ".latm"), "loas"),
)
AMR, WMA = (
    Container("AMR", (".amr", ".awb"), "amr"),
    Container("WMA", (".wma", ".wmv", ".asf"), "asf"),
)
AVI, FLV = Container("AVI", (".avi",), "avi"), Container("FLV", (".flv",), "flv")
TS = Container("MPEG-TS", (".ts", ".m2ts", ".mts"), "mpegts")
MPEG_PS = Container("MPEG-PS", (".mpg", ".mpeg", ".vob"), "mpeg")
AC3, WAVPACK = Container("AC-3", (".ac3",), "ac3"), Container("WavPack", (".wv",), "wv")
EAC3, TTA = Container("E-AC-3", (".eac3", ".ec3"), "eac3"), Container("TTA", (".tta",), "tta")

# (offset, bytes, second offset, second bytes, container)
_MAGIC: Sequence[tuple[int, _Magic, int, _Magic, Container]] = (
    (0, b"RIFF", 8, b"WAVE", WAV),
    (0, b"RIFX", 8, b"WAVE", RIFX),
    (0, b"RF64", 8, b"WAVE", RF64),
    (0, bytes.fromhex("726966662e91cf11a5d628db04c10000"), 24, b"wave", W64),
    (0, b"FORM", 8, (b"AIFF", b"AIFC"), AIFF),
    (0, b"FORM", 8, (b"8SVX", b"16SV"), SVX),
    (0, b"caff", 28, b"alac", CAF_ALAC),
    (0, b"caff", 4, b"\0\1", CAF),
    (0, b".snd", 0, b"", AU),
    (0, b"fLaC", 0, b"", FLAC),
    (0, b"OggS", 4, b"\0", OGG),
    (0, b"NIST_1A\n", 0, b"", NIST),
    (0, b"Creative Voice File\x1a", 0, b"", VOC),
    (0, b"PVF1\n", 0, b"", PVF),
    (0, (b" paf", b"fap "), 0, b"", PAF),
    (0, b"2BIT", 0, b"", AVR),
    (0, b"ALawSoundFile**\0", 0, b"", WVE),
    (4, (b"ftyp", b"moov", b"mdat", b"wide", b"skip", b"free", b"pnot"), 0, b"\0", MP4),
    (0, bytes.fromhex("1a45dfa3"), 0, b"", WEBM),
    (0, b"#!AMR", 0, b"", AMR),
    (0, bytes.fromhex("3026b2758e66cf11"), 0, b"", WMA),
    (0, b"RIFF", 8, b"AVI ", AVI),
    (0, b"FLV\1", 0, b"", FLV),
    (0, bytes.fromhex("000001ba"), 0, b"", MPEG_PS),
    (0, b"wvpk", 0, b"", WAVPACK),
    (0, b"TTA1", 0, b"", TTA),
)
# Recognised by their frames or packets, or by the whole of their header.
_WITHOUT_MAGIC = (MP3, AAC, LATM, TS, AC3, EAC3, HTK)
AUDIO_SUFFIXES = frozenset(
    suffix
    for container in (*(row[-1] for row in _MAGIC), *_WITHOUT_MAGIC)
    for suffix in container.suffixes
)
"""The suffixes of all containers that are decoded, in lower case."""

_PLAYLIST = "a playlist; playlists are never followed"
_LOOKS: Sequence[tuple[int, _Magic, str]] = (  # (offset, bytes in lower case, phrase)
    (0, b"version https://git-lfs", "a Git LFS pointer, not the audio: run `git lfs pull`"),
    (0, (b"#extm3u", b"[playlist]", b"ffconcat", b"<mpd"), _PLAYLIST),
    (0, b"v=0", "a session description (SDP); descriptions are never followed"),
    (0, (b"<!doctype html", b"<html"), "a web page; the download probably failed"),
    (0, b"<?xml", "an XML text"),
    (0, b"<", "a text with markup"),
    (0, b"pk\x03\x04", "a zip archive; unpack it first"),
    (0, b"pk\x05\x06", "an empty zip archive"),
    (0, b"\x1f\x8b", "a gzip archive; unpack it first"),
    (0, b"7z\xbc\xaf", "a 7z archive; unpack it first"),
    (0, b"rar!", "a RAR archive; unpack it first"),
    (257, b"ustar", "a tar archive; unpack it first"),
    (0, b"%pdf", "a PDF document"),
    (0, b"\x89png", "a PNG picture"),
    (0, b"\xff\xd8\xff", "a JPEG picture"),
    (0, b"gif8", "a GIF picture"),
    (8, b"webp", "a WebP picture"),
    (0, b"#!amr", "a damaged AMR file"),
    (0, b"mthd", "a MIDI score, which holds no sound"),
    (0, (b"\x7felf", b"mz"), "a program"),
    (0, b"\0\5\x16\7", "the AppleDouble companion of a file, which holds no sound"),
    (0, b"matlab 5.0", "a MATLAB file; load it and pass the array"),
    (0, (b"\x64\xa3", b"\xa3\x64"), "an IRCAM file, which is not decoded; convert it"),
    (0, b"extended instrument", "an instrument of FastTracker, which is not decoded"),
    (0, b"\xf0\x7e", "a MIDI sample dump, which is not decoded"),
    (0, b"\x93numpy", "a NumPy file; load it and pass the array"),
    (0, (b"\x80\x02", b"\x80\x04"), "a Python pickle"),
)


class Found(NamedTuple):
    """A recording in a file."""

    container: Container
    start: int  # its first byte
    is_cut: bool = False  # it begins within a frame or a packet


def identify(reader: ByteReader, name: str) -> Found:
    """The container by its content; an AudioError says what any other file looks like.

    Tags, zero bytes and line ends before the recording are skipped, and so is the rest of a frame
    that was cut.
    """
    head = reader.read_at(0, HEAD_BYTES)
    reader.raise_failure(name)
    for start in dict.fromkeys((0, frames.tags_end(reader, 0), frames.blank_end(reader, 0))):
        container = _container_at(reader, start)
        if container is not None:
            return Found(container, start)
    data = reader.read_at(0, SEARCH_BYTES)
    for container, find in _FINDERS.items():
        found = find(data)
        if found is not None:
            return Found(container, found, is_cut=found > 0 and not head.startswith(b"ID3"))
    raise AudioError(_refusal(head, name))


def refuse_unknown(reader: ByteReader, name: str) -> None:
    """Raise an AudioError if the first `SEARCH_BYTES` of a stream show that it is not audio."""
    head = reader.read_at(0, HEAD_BYTES)
    if not head.startswith(b"ID3") and _htk_bytes(head) is None:
        identify(reader, name)


def _container_at(reader: ByteReader, start: int) -> Container | None:
    head = reader.read_at(start, HEAD_BYTES)
    for offset, magic, second_offset, second, container in _MAGIC:
        if head.startswith(magic, offset) and head.startswith(second, second_offset):
            return container if container is not AMR or frames.starts_amr(reader, start) else None
    for container, kind in FRAMED.items():
        if frames.starts_frames(reader, start, kind):
            return container
    return HTK if _htk_bytes(head) == reader.size - start else None


def _find_packets(data: bytes) -> int | None:
    """Where MPEG-TS packets begin, of 188 bytes or of 192 with a time stamp before each."""
    for size, before in ((188, 0), (192, 4)):
        for start in range(size):
            syncs = data[start + before : start + _NUM_PACKETS * size : size]
            if syncs == b"G" * _NUM_PACKETS:
                return start
    return None


def _htk_bytes(head: bytes) -> int | None:
    """Length of an HTK waveform by its header, which is certain only if the file has it."""
    if len(head) < 12:
        return None
    num_samples, period, sample_bytes, kind = struct.unpack(">iihh", head[:12])
    is_likely = (sample_bytes, kind) == (2, 0) and num_samples > 0 and 0 < period <= 10_000
    return 12 + 2 * num_samples if is_likely else None


FRAMED = {
    AAC: frames.ADTS,
    MP3: frames.MPEG,
    LATM: frames.LATM,
    AC3: frames.AC3,
    EAC3: frames.EAC3,
}
_FINDERS: Mapping[Container, Callable[[bytes], int | None]] = {
    MP3: partial(frames.find_frames, kind=frames.MPEG),
    AAC: partial(frames.find_frames, kind=frames.ADTS),
    TS: _find_packets,
}


def _refusal(head: bytes, name: str) -> str:
    return (
        f"{name} cannot be decoded as audio: it looks like {_appearance(head)}; "
        "pass wav, flac, ogg, opus, mp3, aiff, caf, m4a, aac, webm or amr"
    )


def _appearance(head: bytes) -> str:
    lowered = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if lowered.startswith(b"<?xml") and b"<mpd" in lowered:
        return _PLAYLIST
    for offset, magic, phrase in _LOOKS:
        if lowered.startswith(magic, offset):
            return phrase
    if not head.strip(b"\0"):
        return "nothing but zero bytes"
    if all(32 <= byte < 127 or byte in b"\t\r\n" for byte in head):
        return f"a text that begins with {head[:24].decode('ascii')!r}"
    if head[:3] == b"ID3" or (head[0] == 0xFF and head[1:2] >= b"\xe0"):
        return "a damaged MP3 or AAC file"
    return f"unknown data that begins with the bytes {head[:8].hex(' ')}"
