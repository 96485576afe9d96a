"""Damaged, lying and hostile files: a sentence or a flag, never a crash, never a request."""

import contextlib
import http.server
import io
import json
import struct
import subprocess
import sys
import threading
import zipfile

import numpy as np
import pytest
from support.audio_files import babble, encode, encode_media, read_recording

from emoser.audio import AudioBlocks, load_audio
from emoser.errors import AudioError

WAV = encode(babble(16_000), 16_000)


def with_data_size(size, riff_size=None):
    """The WAV with another size in its data chunk, and in its RIFF header if given."""
    file = bytearray(WAV)
    at = file.index(b"data")
    file[at + 4 : at + 8] = struct.pack("<I", size)
    if riff_size is not None:
        file[4:8] = struct.pack("<I", riff_size)
    return bytes(file)


def zipped():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("call.wav", WAV)
    return buffer.getvalue()


GARBAGE = {
    "empty": (b"", "is empty"),
    "text": (b"hello, this is no sound at all\n" * 20, "a text that begins with 'hello"),
    "html": (b"<!DOCTYPE html><html><body>404</body></html>", "a web page"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
    "zip": (zipped(), "a zip archive"),
    "pdf": (b"%PDF-1.7\n%", "a PDF"),
    "png": (b"\x89PNG\r\n\x1a\n" + bytes(50), "a PNG"),
    "gzip": (b"\x1f\x8b\x08\x00" + bytes(50), "a gzip archive"),
    "zeros": (bytes(10_000), "nothing but zero bytes"),
    "noise": (np.random.default_rng(3).bytes(10_000), "unknown data that begins with"),
    "sync": (b"\xff\xfb\x90\x64" + np.random.default_rng(3).bytes(9_000), "a damaged MP3"),
    "tag": (b"ID3\x04\0\0\0\0\0\x10" + np.random.default_rng(3).bytes(900), "a damaged MP3"),
    "amr": (b"#!AMR\n" + np.random.default_rng(4).bytes(900), "a damaged AMR"),
    "riff": (b"RIFF\x24\0\0\0WAVEfmt ", "begins like WAV"),
    "fmt": (WAV[:30], "begins like WAV"),
    "flac": (b"fLaC" + bytes(60), "begins like FLAC"),
    "ogg": (b"OggS\0" + bytes(600), "begins like Ogg"),
    "avi": (b"RIFF\x24\0\0\0AVI LIST", "begins like AVI"),
}
PLAYLISTS = {
    "m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\n{url}/a.ts\n#EXT-X-ENDLIST\n",
    "concat": "ffconcat version 1.0\nfile '{url}/b.wav'\n",
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nt=0 0\nm=audio 5004 RTP/AVP 0\n",
    "mpd": '<?xml version="1.0"?>\n<MPD><BaseURL>{url}/c.mp4</BaseURL></MPD>\n',
    "pls": "[playlist]\nFile1={url}/d.mp3\nNumberOfEntries=1\n",
}


@pytest.mark.parametrize("kind", GARBAGE)
def test_what_is_no_recording_is_named(kind, tmp_path):
    content, phrase = GARBAGE[kind]
    path = tmp_path / "call.wav"
    path.write_bytes(content)
    with pytest.raises(AudioError, match=phrase) as caught:
        load_audio(path)
    assert str(path) in str(caught.value)
    with pytest.raises(AudioError, match=phrase):
        load_audio(content)


def test_a_header_without_samples_is_refused():
    for file in (encode(np.empty(0), 16_000), encode(np.empty(0), 16_000, "AIFF")):
        with pytest.raises(AudioError, match="holds no samples"):
            load_audio(file)


@pytest.mark.parametrize(
    ("fmt", "subtype"),
    [
        ("WAV", "PCM_16"),
        ("WAV", "IMA_ADPCM"),
        ("RF64", "PCM_16"),
        ("W64", "PCM_16"),
        ("AIFF", "PCM_16"),
        ("AU", "PCM_16"),
        ("CAF", "PCM_16"),
        ("FLAC", "PCM_16"),
        ("OGG", "VORBIS"),
        ("OGG", "OPUS"),
        ("MP3", "MPEG_LAYER_III"),
    ],
)
@pytest.mark.parametrize("share", [0.3, 0.7, 0.99])
def test_a_shortened_file_gives_what_is_there_and_a_flag(fmt, subtype, share, capfd):
    whole = encode(babble(16_000, 8.0), 16_000, fmt, subtype)
    recording = read_recording(whole[: int(len(whole) * share)])
    assert recording.quality == ("truncated",)
    # An Ogg page is one second of sound, and a page is lost whole.
    assert 8 * share - 2.5 < recording.duration <= 8 * share + 0.6
    assert "truncated" not in read_recording(whole).quality
    assert capfd.readouterr().err == ""


def test_a_flac_damaged_in_the_middle_gives_all_before_the_damage():
    whole = encode(babble(16_000, 5.0), 16_000, "FLAC")
    half = len(whole) // 2
    recording = read_recording(whole[:half] + bytes(64) + whole[half + 64 :])
    intact = load_audio(whole)
    assert recording.quality == ("truncated",)
    assert len(recording.samples) > 30_000
    assert np.array_equal(recording.samples, intact[: len(recording.samples)])


@pytest.mark.parametrize("size", [0xFFFF_FFFF, 0x7FFF_FFFF, 0x8000_0000, 4_000_000_000])
def test_a_wav_that_leaves_its_size_open_is_read_to_its_end(size):
    recording = read_recording(with_data_size(size))
    assert (len(recording.samples), recording.quality) == (16_000, ())


@pytest.mark.parametrize("riff_size", [0, 0xFFFF_FFFF, 36])
def test_a_streamed_wav_with_size_zero_is_read_to_its_end(riff_size):
    recording = read_recording(with_data_size(0, riff_size))
    assert (len(recording.samples), recording.quality) == (16_000, ())


def test_a_wav_that_claims_too_much_is_flagged():
    recording = read_recording(with_data_size(64_000))
    assert (len(recording.samples), recording.quality) == (16_000, ("truncated",))


def test_a_flac_that_claims_2_to_the_36_frames_costs_nothing():
    file = bytearray(encode(babble(16_000), 16_000, "FLAC"))
    total = int.from_bytes(file[18:26], "big") >> 36 << 36 | 2**36 - 1
    file[18:26] = total.to_bytes(8, "big")
    with AudioBlocks(bytes(file)) as blocks:
        assert blocks.declared_seconds > 4_000_000
        assert sum(len(block) for block in blocks) == 16_000
        assert (blocks.duration, blocks.quality) == (1.0, ("truncated",))


@pytest.mark.parametrize("rate", [0, 1, 999, 768_001, 2**31 - 1])
def test_absurd_sampling_rates_are_refused(rate):
    file = bytearray(WAV)
    file[24:28] = struct.pack("<I", rate)
    with pytest.raises(AudioError):
        load_audio(bytes(file))


@pytest.mark.parametrize("channels", [0, 65, 1_000, 65_535])
def test_absurd_numbers_of_channels_are_refused(channels):
    file = bytearray(WAV)
    file[22:24] = struct.pack("<H", channels)
    with pytest.raises(AudioError):
        load_audio(bytes(file))


def test_adpcm_headers_that_overflow_the_decoder_are_refused():
    file = bytearray(encode(babble(16_000, 5.0), 16_000, "WAV", "IMA_ADPCM"))
    file[32:34] = struct.pack("<H", 1)  # bytes per block
    file[38:40] = struct.pack("<H", 65_535)  # samples per block
    with pytest.raises(AudioError, match="damaged or hostile"):
        load_audio(bytes(file))


@pytest.fixture(scope="module")
def web_server():
    """A server on the loopback that notes every request."""
    requests = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            requests.append(self.path)
            self.send_error(404)

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", requests
        server.shutdown()


@pytest.mark.parametrize("kind", PLAYLISTS)
def test_playlists_are_refused_and_nothing_is_fetched(kind, web_server, tmp_path):
    url, requests = web_server
    content = PLAYLISTS[kind].format(url=url).encode()
    path = tmp_path / f"list.{kind}"
    path.write_bytes(content)
    named = io.BytesIO(content)
    named.name = f"list.{kind}"
    with path.open("rb") as file:
        for source in (path, content, named, file):
            with pytest.raises(AudioError, match="never followed"):
                load_audio(source)
    assert requests == []


def test_a_playlist_behind_media_magic_fetches_nothing(web_server):
    pytest.importorskip("av")
    url, requests = web_server
    playlist = PLAYLISTS["m3u8"].format(url=url).encode()
    for magic in (b"\0\0\0\x08ftyp", b"#!AMR\n", bytes.fromhex("1a45dfa3")):
        named = io.BytesIO(magic + playlist)
        named.name = "list.m3u8"
        with pytest.raises(AudioError):
            load_audio(named)
    assert requests == []


def test_an_mp4_that_refers_to_a_url_does_not_open_it(web_server):
    url, requests = web_server
    file = bytearray(encode_media(babble(16_000), 16_000, "mov", "pcm_s16le"))
    target = url.encode() + b"/e.mov\0"
    # A data reference with flag 1 means "in this file"; with flag 0 a URL follows.
    at = file.index(b"url ", file.index(b"dref"))
    for box in (b"moov", b"trak", b"mdia", b"minf", b"dinf", b"dref", b"url "):
        size_at = (at if box == b"url " else file.index(box)) - 4
        size = int.from_bytes(file[size_at : size_at + 4], "big") + len(target)
        file[size_at : size_at + 4] = size.to_bytes(4, "big")
    file[at : at + 8] = b"url \0\0\0\0" + target
    with contextlib.suppress(AudioError):
        load_audio(bytes(file))
    assert requests == []


def test_nothing_is_printed_for_garbage_and_for_tagged_or_shortened_mp3():
    mp3 = encode(babble(16_000, 4.0), 16_000, "MP3")
    tag = b"ID3\x03\0\0" + bytes([0, 4, 0, 0]) + bytes(65_536)
    files = [content for content, _ in GARBAGE.values()]
    files += [
        mp3[:400],
        mp3[:800],
        tag + mp3,
        tag + mp3[: len(mp3) // 2],
        mp3[: len(mp3) // 3],
        mp3 + bytes(500),
    ]
    code = (
        "import sys, json; from emoser.audio import load_audio; from emoser.errors import *\n"
        "for text in json.load(sys.stdin):\n"
        "    try: load_audio(bytes.fromhex(text))\n"
        "    except AudioError: pass\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps([file.hex() for file in files]).encode(),
        capture_output=True,
        timeout=120,
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, b"", b"")


MUTATE = """
import collections, json, random, resource, sys
from emoser.audio import AudioLimits, load_audio
from emoser.errors import AudioError

resource.setrlimit(resource.RLIMIT_AS, (3 * 2**30, 3 * 2**30))
resource.setrlimit(resource.RLIMIT_CPU, (600, 600))
rng = random.Random(int(sys.argv[2]))
files = [bytes.fromhex(text) for text in json.load(sys.stdin)]
limits = AudioLimits(max_seconds=100.0)
outcomes = collections.Counter()
for number in range(int(sys.argv[1])):
    file = bytearray(rng.choice(files))
    for _ in range(rng.choice((1, 2, 4, 16))):
        value = rng.choice((0, 1, 127, 128, 255, rng.randrange(256)))
        file[rng.randrange(min(len(file), 200))] = value
    if rng.random() < 0.3:
        del file[rng.randrange(len(file)):]
    try:
        load_audio(bytes(file), limits=limits)
        outcomes["decoded"] += 1
    except AudioError:
        outcomes["refused"] += 1
print(json.dumps(outcomes))
"""


def mutate(num_files, seed):
    samples = babble(16_000, 0.3)
    kinds = [
        *(("WAV", name) for name in ("PCM_16", "FLOAT", "ULAW", "IMA_ADPCM", "MS_ADPCM", "GSM610")),
        ("WAVEX", "PCM_24"), ("RF64", "PCM_16"), ("W64", "IMA_ADPCM"), ("AIFF", "PCM_16"),
        ("CAF", "PCM_16"), ("CAF", "ALAC_16"), ("AU", "PCM_16"), ("FLAC", "PCM_16"),
        ("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III"), ("NIST", "PCM_16"),
        ("VOC", "PCM_16"), ("SVX", "PCM_16"), ("PVF", "PCM_16"), ("PAF", "PCM_24"),
        ("AVR", "PCM_16"), ("HTK", "PCM_16"), ("WVE", "ALAW"), ("WAV", "G721_32"),
        ("WAV", "NMS_ADPCM_24"), ("AU", "G723_40"), ("AIFF", "DWVW_16"), ("AIFF", "IMA_ADPCM"),
    ]  # fmt: skip
    files = [encode(samples, 16_000, *kind) for kind in kinds]
    files += [
        encode_media(samples, 16_000, *kind)
        for kind in (
            *(("ipod", "aac"), ("adts", "aac"), ("matroska", "flac"), ("mov", "pcm_s16le")),
            *(("avi", "libmp3lame"), ("mpegts", "mp2"), ("flv", "aac"), ("wv", "wavpack")),
            *(("ogg", "flac"), ("mpeg", "mp2"), ("tta", "tta"), ("wav", "adpcm_yamaha")),
        )
    ]
    return subprocess.run(
        [sys.executable, "-W", "error::RuntimeWarning", "-c", MUTATE, str(num_files), str(seed)],
        input=json.dumps([file.hex() for file in files]).encode(),
        capture_output=True,
        timeout=900,
    )


@pytest.mark.skipif(sys.platform != "linux", reason="needs limits on memory")
@pytest.mark.parametrize("num_files", [400, pytest.param(10_000, marks=pytest.mark.slow)])
def test_mutated_headers_give_samples_or_a_sentence(num_files):
    run = mutate(num_files, seed=num_files)
    assert run.returncode == 0, run.stderr[-2000:]
    assert run.stdout.count(b"\n") == 1, run.stdout  # nothing but our own line
    outcomes = json.loads(run.stdout)
    assert sum(outcomes.values()) == num_files
    assert outcomes["decoded"] > 0
    assert outcomes["refused"] > 0
