"""Identify the container of a file by its first bytes, or describe what the file looks like.

An allow-list: a format that is not listed here is not decoded, whatever the file extension.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from emoser.audio import frames
from emoser.audio.reader import ByteReader
from emoser.errors import AudioError

HEAD_BYTES = 512

_Magic: TypeAlias = bytes | tuple[bytes, ...]


@dataclass(frozen=True)
class Container:
    """A container format that is decoded."""

    label: str
    ffmpeg_format: str = ""  # FFmpeg's name of the demuxer; empty where libsndfile decodes it


WAV, RIFX, RF64, W64 = Container("WAV"), Container("RIFX"), Container("RF64"), Container("W64")
AIFF, CAF, AU = Container("AIFF"), Container("CAF"), Container("AU")
FLAC, OGG, MP3 = Container("FLAC"), Container("Ogg"), Container("MP3")
MP4, WEBM = Container("MP4/M4A", "mov"), Container("WebM/Matroska", "matroska")
# libsndfile's ALAC decoder prints to standard output and fills up shortened files with noise.
CAF_ALAC = Container("CAF with ALAC", "caf")
AAC, AMR, WMA = Container("AAC", "aac"), Container("AMR", "amr"), Container("WMA", "asf")

# (offset, bytes, second offset, second bytes, container)
_MAGIC: Sequence[tuple[int, _Magic, int, _Magic, Container]] = (
    (0, b"RIFF", 8, b"WAVE", WAV),
    (0, b"RIFX", 8, b"WAVE", RIFX),
    (0, b"RF64", 8, b"WAVE", RF64),
    (0, bytes.fromhex("726966662e91cf11a5d628db04c10000"), 24, b"wave", W64),
    (0, b"FORM", 8, (b"AIFF", b"AIFC"), AIFF),
    (0, b"caff", 28, b"alac", CAF_ALAC),
    (0, b"caff", 4, b"\0\1", CAF),
    (0, b".snd", 0, b"", AU),
    (0, b"fLaC", 0, b"", FLAC),
    (0, b"OggS", 4, b"\0", OGG),
    (4, (b"ftyp", b"moov", b"mdat", b"wide"), 0, b"\0", MP4),
    (0, bytes.fromhex("1a45dfa3"), 0, b"", WEBM),
    (0, b"#!AMR", 0, b"", AMR),
    (0, bytes.fromhex("3026b2758e66cf11"), 0, b"", WMA),
)

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
    (8, b"avi ", "an AVI video; extract its audio first"),
    (0, b"#!amr", "a damaged AMR file"),
    (0, b"mthd", "a MIDI score, which holds no sound"),
    (0, (b"\x7felf", b"mz"), "a program"),
    (0, b"\x93numpy", "a NumPy file; load it and pass the array"),
    (0, (b"\x80\x02", b"\x80\x04"), "a Python pickle"),
)


def identify(reader: ByteReader, name: str) -> Container:
    """The container by its content; an AudioError says what any other file looks like."""
    head = reader.read_at(0, HEAD_BYTES)
    reader.raise_failure()
    container = _container_of(head)
    if container is AMR and not frames.starts_amr(reader):
        raise AudioError(_refusal(head, name))
    if container is not None:
        return container
    offset = frames.id3_end(reader)
    if offset and reader.read_at(offset, 4) == b"fLaC":
        return FLAC
    if frames.starts_adts(reader, offset):
        return AAC
    if frames.starts_mpeg_audio(reader, offset):
        return MP3
    raise AudioError(_refusal(head, name))


def refuse_unknown(head: bytes, name: str) -> None:
    """Raise an AudioError for a stream whose first bytes already show that it is not audio."""
    if _container_of(head) is None and not _may_be_mpeg(head):
        raise AudioError(_refusal(head, name))


def _container_of(head: bytes) -> Container | None:
    for offset, magic, second_offset, second, container in _MAGIC:
        if head.startswith(magic, offset) and head.startswith(second, second_offset):
            return container
    return None


def _may_be_mpeg(head: bytes) -> bool:
    return head[:3] == b"ID3" or (len(head) > 1 and head[0] == 0xFF and head[1] >= 0xE0)


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
    if _may_be_mpeg(head):
        return "a damaged MP3 or AAC file"
    return f"unknown data that begins with the bytes {head[:8].hex(' ')}"
