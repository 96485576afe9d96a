"""Whatever a container holds is decoded or flagged, wherever it begins and however it ends."""

import io
import struct
import subprocess
import sys

import numpy as np
import pytest
import soundfile
from support.audio_files import babble, correlation, encode, encode_media, read_recording

from emoser.audio import load_audio
from emoser.errors import AudioError

FIRST, SECOND = babble(16_000, 2.0), babble(16_000, 1.0, seed=3)
# Formats of libsndfile that are refused, and why.
NOT_DECODED = {
    "RAW": "unknown data|text",  # no header
    "SD2": "unknown data|text",  # the header is in a second file
    "MPC2K": "unknown data",  # a sample of an instrument, like the two that follow
    "XI": "instrument",
    "SDS": "sample dump",
    "MAT4": "unknown data",  # arrays, whose reader in libsndfile has known faults
    "MAT5": "MATLAB",
    "IRCAM": "IRCAM",  # libsndfile's reader has known faults
}
KINDS = [
    (fmt, subtype)
    for fmt in soundfile.available_formats()
    for subtype in soundfile.available_subtypes(fmt)
]


def write_anywhere(fmt, subtype):
    """A second of sound in a format, at the first rate that it takes; None if it takes none."""
    for rate in (16_000, 8_000):
        try:
            return encode(babble(rate), rate, fmt, subtype), rate
        except soundfile.LibsndfileError:
            continue
    return None


@pytest.mark.parametrize(("fmt", "subtype"), KINDS)
def test_all_that_libsndfile_writes_is_decoded_or_named(fmt, subtype, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # libsndfile writes a file of its own beside an SD2
    written = write_anywhere(fmt, subtype)
    if written is None:
        assert subtype.startswith(("DWVW_12", "MPEG_LAYER"))  # libsndfile cannot write it
        return
    file, rate = written
    if fmt in NOT_DECODED:
        with pytest.raises(AudioError, match=NOT_DECODED[fmt]):
            load_audio(file)
        return
    recording = read_recording(file)
    # Coders of telephony do badly on noise; WVE and VOC store another rate than they were given.
    least = 0.9 if subtype in ("GSM610", "NMS_ADPCM_16") else 0.98
    if recording.source_rate == rate:
        assert correlation(recording.samples, load_audio(babble(rate), sampling_rate=rate)) > least
    assert recording.duration * recording.source_rate == pytest.approx(rate, abs=320)
    assert "truncated" not in recording.quality
    if subtype not in ("DWVW_16", "DWVW_24") and not subtype.startswith("ALAC"):
        whole, _ = soundfile.read(io.BytesIO(file), dtype="float32")
        assert recording.duration == pytest.approx(len(whole) / recording.source_rate)


MEDIA = [
    *(("ogg", "flac", 16_000), ("avi", "pcm_s16le", 16_000), ("avi", "libmp3lame", 16_000)),
    *(("mpegts", "aac", 16_000), ("mpegts", "mp2", 16_000), ("mpeg", "mp2", 44_100)),
    *(("flv", "aac", 44_100), ("flv", "libmp3lame", 44_100), ("wv", "wavpack", 16_000)),
    *(("tta", "tta", 16_000), ("ac3", "ac3", 48_000), ("eac3", "eac3", 48_000)),
    *(("latm", "aac", 16_000), ("wav", "adpcm_yamaha", 16_000), ("wav", "adpcm_g726", 8_000)),
    *(("wav", "libmp3lame", 44_100), ("wav", "ac3", 48_000), ("aiff", "adpcm_ima_qt", 16_000)),
    *(("caf", "adpcm_ima_qt", 16_000), ("au", "adpcm_g722", 16_000)),
    *(("mp2", "mp2", 44_100), ("matroska", "pcm_s16le", 16_000), ("3g2", "aac", 16_000)),
    *(("webm", "libopus", 48_000), ("adts", "aac", 44_100), ("amr", "libopencore_amrnb", 8_000)),
    *(("asf", "wmav2", 44_100), ("mp4", "aac", 44_100), ("matroska", "flac", 16_000)),
]


@pytest.mark.parametrize(("fmt", "codec", "rate"), MEDIA)
def test_media_files_are_decoded_whole_and_twice_as_long_when_joined(fmt, codec, rate):
    file = encode_media(babble(rate, 2.0), rate, fmt, codec)
    recording = read_recording(file)
    least = 0.4 if "amr" in codec else 0.9
    assert correlation(recording.samples, load_audio(babble(rate, 2.0), sampling_rate=rate)) > least
    assert recording.duration == pytest.approx(2.0, abs=0.13)
    assert "truncated" not in recording.quality
    joined = read_recording(file + file)
    is_whole = abs(joined.duration - 2 * recording.duration) < 0.1
    assert is_whole or "truncated" in joined.quality


@pytest.mark.parametrize(("fmt", "codec", "rate"), MEDIA)
@pytest.mark.parametrize("lost", [0.2, 0.31, 0.77])
def test_a_media_file_that_lost_a_fifth_of_a_second_is_flagged_or_refused(fmt, codec, rate, lost):
    whole = encode_media(babble(rate, 4.0), rate, fmt, codec)
    cut = whole[: int(len(whole) * (1 - lost / 4))]
    if fmt == "mpegts" and len(cut) % 188 == 0:
        cut = cut[:-1]  # between two packets nothing shows
    try:
        recording = read_recording(cut)
    except AudioError as error:
        assert "damaged or incomplete" in str(error) or "no samples" in str(error)  # noqa: PT017
        assert fmt in ("mp4", "3g2") or codec in ("wavpack", "pcm_s16le")  # index or block lost
        return
    if fmt not in ("mpeg", "latm"):  # nothing in them says where they end
        assert "truncated" in recording.quality


def test_a_live_webm_without_sizes_is_flagged_when_a_block_is_cut():
    live = bytearray(encode_media(babble(48_000, 4.0), 48_000, "webm", "libopus"))
    assert "truncated" not in read_recording(bytes(live)).quality
    segment = live.index(bytes.fromhex("18538067"))
    live[segment + 4 : segment + 12] = b"\x01" + b"\xff" * 7
    cluster = live.index(bytes.fromhex("1f43b675"))
    width = 9 - live[cluster + 4].bit_length()
    live[cluster + 4 : cluster + 4 + width] = ((1 << 7 * width + 1) - 1).to_bytes(width, "big")
    del live[len(live) * 15 // 16 :]
    assert "truncated" in read_recording(bytes(live)).quality


JOINED = [
    *(("WAV", "PCM_16"), ("RF64", "PCM_16"), ("W64", "PCM_16"), ("AIFF", "PCM_16")),
    *(("AU", "PCM_16"), ("CAF", "PCM_16"), ("FLAC", "PCM_16"), ("OGG", "VORBIS")),
    *(("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III"), ("NIST", "PCM_16")),
]


@pytest.mark.parametrize(("fmt", "subtype"), JOINED)
@pytest.mark.parametrize("between", [b"", bytes(512)], ids=["", "padded"])
def test_joined_files_are_decoded_one_after_the_other(fmt, subtype, between):
    first, second = encode(FIRST, 16_000, fmt, subtype), encode(SECOND, 16_000, fmt, subtype)
    recording = read_recording(first + between + second)
    parts = [load_audio(first), load_audio(second)]
    if fmt != "MP3":  # one stream for the decoder, whose padding is in the middle
        assert np.array_equal(recording.samples, np.concatenate(parts))
    assert recording.duration == pytest.approx(3.0, abs=0.1)
    assert "truncated" not in recording.quality


@pytest.mark.parametrize(
    "other",
    [encode(babble(44_100), 44_100), encode(babble(16_000, channels=2), 16_000), b"\x01\xfe" * 99],
    ids=["rate", "channels", "noise"],
)
@pytest.mark.parametrize("fmt", ["WAV", "FLAC", "OGG", "MP3", "AIFF"])
def test_what_follows_and_does_not_fit_is_flagged(fmt, other):
    file = encode(FIRST, 16_000, fmt)
    recording = read_recording(file + other)
    assert np.array_equal(recording.samples, load_audio(file))
    assert "truncated" in recording.quality


@pytest.mark.parametrize("fmt", ["WAV", "FLAC", "OGG", "MP3", "AIFF", "AU"])
@pytest.mark.parametrize(
    "tail",
    [b"TAG" + bytes(125), bytes(3_000), b"\n<recorder>7</recorder>\n", b"APETAGEX" + bytes(24)],
)
def test_tags_padding_and_texts_at_the_end_are_no_sound(fmt, tail):
    file = encode(FIRST, 16_000, fmt)
    recording = read_recording(file + tail)
    assert np.array_equal(recording.samples, load_audio(file))
    assert "truncated" not in recording.quality


def test_a_wav_with_several_chunks_of_data_is_decoded_whole():
    first, second = encode(FIRST, 16_000), encode(SECOND, 16_000)
    more = b"LIST" + struct.pack("<I", 4) + b"INFO" + second[36:]
    file = bytearray(first + more)
    file[4:8] = struct.pack("<I", len(file) - 8)
    recording = read_recording(bytes(file))
    parts = np.concatenate([load_audio(first), load_audio(second)])
    assert np.array_equal(recording.samples, parts)
    assert "truncated" not in recording.quality


@pytest.mark.parametrize("chunk", [b"bext", b"odd "])
def test_a_chunk_that_is_not_padded_is_no_loss(chunk):
    file = encode(FIRST[:-1], 16_000, "WAV", "PCM_U8")[:-1]  # an odd number of bytes
    assert len(file) % 2
    assert "truncated" not in read_recording(file + chunk + struct.pack("<I", 2) + b"ab").quality


def test_a_wav_whose_sizes_stop_short_is_flagged():
    file = bytearray(encode(FIRST, 16_000))
    file[40:44] = struct.pack("<I", 16_000)
    recording = read_recording(bytes(file))
    assert (recording.duration, "truncated" in recording.quality) == (0.5, True)
    file[4:8] = struct.pack("<I", 16_036)
    assert "truncated" in read_recording(bytes(file)).quality
    long = bytearray(encode(FIRST, 16_000))
    long[4:8] = struct.pack("<I", 10_036)  # only the outer size is wrong
    assert np.array_equal(load_audio(bytes(long)), load_audio(encode(FIRST, 16_000)))


def test_a_flac_that_declares_too_little_is_decoded_whole():
    file = bytearray(encode(FIRST, 16_000, "FLAC"))
    total = int.from_bytes(file[18:26], "big") >> 36 << 36 | 16_000
    file[18:26] = total.to_bytes(8, "big")
    assert np.array_equal(load_audio(bytes(file)), load_audio(encode(FIRST, 16_000, "FLAC")))


def test_a_second_sound_track_is_flagged():
    av = pytest.importorskip("av")
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="matroska") as container:
        streams = [container.add_stream("flac", rate=16_000, layout="mono") for _ in range(2)]
        for stream in streams:
            samples = (FIRST[np.newaxis] * 32_767).astype(np.int16)
            frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
            frame.sample_rate, frame.pts = 16_000, 0
            container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    assert "truncated" in read_recording(buffer.getvalue()).quality


def test_a_lost_page_of_ogg_is_flagged():
    file = encode(babble(16_000, 8.0), 16_000, "OGG")
    pages = [b"OggS" + page for page in file.split(b"OggS")[1:]]
    assert "truncated" not in read_recording(file).quality
    assert "truncated" in read_recording(b"".join(pages[:4] + pages[5:])).quality


# What stands before the sound


MP3 = encode(FIRST, 16_000, "MP3")


def id3(size, content):
    return b"ID3\x03\0\0" + bytes(size >> shift & 0x7F for shift in (21, 14, 7, 0)) + content


WRONG_STARTS = {
    "tag": id3(1024, bytes(1024)),
    "tag too small": id3(512, b"TIT2" + bytes([0, 0, 4, 0]) + b"xy\x01" * 338),
    "tag too large": id3(5_120, bytes(1024)),
    "tag beyond the end": id3(2**28 - 1, bytes(1024)),
    "tag with a picture": id3(100, b"APIC" + np.random.default_rng(5).bytes(200_000)),
    "zeros": bytes(3_000),
    "line break": b"\r\n",
}


@pytest.mark.parametrize("start", WRONG_STARTS)
def test_an_mp3_is_found_behind_what_stands_before_it(start, capfd):
    file = WRONG_STARTS[start] + MP3
    recording = read_recording(file)
    assert np.array_equal(recording.samples, load_audio(MP3))
    assert "truncated" not in recording.quality
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("num_bytes", [1, 100, 777, 2_000])
@pytest.mark.parametrize("kind", [("MP3", "MPEG_LAYER_III"), ("adts", "aac"), ("mpegts", "mp2")])
def test_a_file_cut_in_a_frame_is_decoded_from_the_next(kind, num_bytes):
    whole = encode(FIRST, 16_000, *kind) if kind[0] == "MP3" else None
    whole = whole or encode_media(FIRST, 16_000, *kind)
    recording = read_recording(whole[num_bytes:])
    assert recording.duration == pytest.approx(2.0, abs=0.6)
    assert "truncated" in recording.quality


@pytest.mark.parametrize("fmt", ["WAV", "FLAC", "AIFF", "OGG", "CAF"])
@pytest.mark.parametrize("start", [WRONG_STARTS["tag"], b"\n", bytes(512)])
def test_other_files_are_found_behind_tags_and_padding(fmt, start, tmp_path):
    file = encode(FIRST, 16_000, fmt)
    path = tmp_path / "call"
    path.write_bytes(start + file)
    assert np.array_equal(load_audio(path), load_audio(file))
    with path.open("rb") as opened:
        assert np.array_equal(load_audio(opened), load_audio(file))


DAMAGED_MP3 = """
import ctypes, random, sys, threading
from emoser.audio import load_audio
from emoser.audio.frames import mpeg_frame_length
from emoser.errors import AudioError

file, rng, library = open(sys.argv[1], "rb").read(), random.Random(1), ctypes.CDLL(None)
error = ctypes.c_void_p.in_dll(library, "stderr")
starts = [0]
while length := mpeg_frame_length(file[starts[-1] : starts[-1] + 4]):
    starts.append(starts[-1] + length)
def damage():
    for _ in range(40):
        damaged = bytearray(file)
        for _ in range(20):
            damaged[rng.choice(starts[1:-1]) + rng.randrange(4, 60)] = rng.randrange(256)
        try:
            load_audio(bytes(damaged))
        except AudioError:
            pass
threads = [threading.Thread(target=damage) for _ in range(3)]
for thread in threads: thread.start()
while any(thread.is_alive() for thread in threads):
    library.fputs(b"kept in C\\n", error)
    sys.stderr.write("also kept\\n")
for thread in threads: thread.join()
library.fputs(b"the end\\n", error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="libmpg123 is silenced with the GNU C library")
def test_damaged_mp3_prints_nothing_and_hides_nothing(tmp_path):
    path = tmp_path / "call.mp3"
    path.write_bytes(encode(babble(44_100, 3.0), 44_100, "MP3"))
    run = subprocess.run(
        [sys.executable, "-c", DAMAGED_MP3, path], capture_output=True, text=True, timeout=120
    )
    lines = run.stderr.splitlines()
    assert set(lines) == {"kept in C", "also kept", "the end"}
    assert lines.count("kept in C") == lines.count("also kept")
    assert (run.returncode, run.stdout) == (0, "")
