"""Every format gives the samples that went in, whoever wrote the file."""

import io
import sys

import numpy as np
import pytest
import soundfile
import soxr
from support.audio_files import babble, correlation, encode, encode_media, read_recording

from emoser.audio import AudioBlocks, load_audio
from emoser.errors import AudioError, DependencyError

# (format, subtype, sampling rate, largest error of a sample)
EXACT = [
    ("WAV", "PCM_U8", 2**-7),
    ("WAV", "PCM_16", 2**-15),
    ("WAV", "PCM_24", 2**-23),
    ("WAV", "PCM_32", 2**-24),
    ("WAV", "FLOAT", 0),
    ("WAV", "DOUBLE", 0),
    ("WAV", "ULAW", 2**-5),
    ("WAV", "ALAW", 2**-5),
    ("WAVEX", "PCM_16", 2**-15),
    ("RF64", "PCM_16", 2**-15),
    ("W64", "PCM_16", 2**-15),
    ("AIFF", "PCM_16", 2**-15),
    ("AIFF", "PCM_S8", 2**-7),
    ("CAF", "PCM_24", 2**-23),
    ("AU", "PCM_16", 2**-15),
    ("FLAC", "PCM_S8", 2**-7),
    ("FLAC", "PCM_16", 2**-15),
    ("FLAC", "PCM_24", 2**-23),
]
LOSSY = [
    ("WAV", "IMA_ADPCM", 16_000),
    ("WAV", "MS_ADPCM", 16_000),
    ("WAV", "GSM610", 8_000),
    ("W64", "IMA_ADPCM", 16_000),
    ("OGG", "VORBIS", 44_100),
    ("OGG", "OPUS", 48_000),
    ("MP3", "MPEG_LAYER_III", 44_100),
]


@pytest.mark.parametrize(("fmt", "subtype", "tolerance"), EXACT)
def test_lossless_formats_give_back_the_samples(fmt, subtype, tolerance):
    written = babble(16_000)
    recording = read_recording(encode(written, 16_000, fmt, subtype))
    assert recording.samples.dtype == np.float32
    assert recording.samples.shape == written.shape
    assert np.abs(recording.samples - written).max() <= tolerance
    assert (recording.quality, recording.duration, recording.source_rate) == ((), 1.0, 16_000)


@pytest.mark.parametrize(("fmt", "subtype", "rate"), LOSSY)
def test_lossy_formats_come_close_to_the_samples(fmt, subtype, rate):
    written = babble(rate, 2.0)
    recording = read_recording(encode(written, rate, fmt, subtype))
    least = 0.7 if subtype == "GSM610" else 0.97  # a voice coder does badly on noise
    assert correlation(recording.samples, soxr.resample(written, rate, 16_000)) > least
    assert recording.duration == pytest.approx(2.0, abs=0.07)
    assert "truncated" not in recording.quality


@pytest.mark.parametrize(("fmt", "subtype", "rate"), LOSSY)
def test_lossy_formats_equal_libsndfile_read_whole(fmt, subtype, rate, tmp_path):
    path = tmp_path / "recording"
    path.write_bytes(encode(babble(rate, 2.0), rate, fmt, subtype))
    whole, _ = soundfile.read(path, dtype="float32")
    assert np.array_equal(load_audio(path), soxr.resample(whole, rate, 16_000, quality="HQ"))


@pytest.mark.parametrize(
    ("fmt", "codec", "rate"),
    [
        ("ipod", "aac", 44_100),
        ("mp4", "aac", 16_000),
        ("adts", "aac", 44_100),
        ("ipod", "alac", 44_100),
        ("mov", "pcm_s16le", 16_000),
        ("mov", "pcm_s24le", 16_000),
        ("webm", "libopus", 48_000),
        ("webm", "opus", 48_000),
        ("matroska", "flac", 16_000),
        ("amr", "libopencore_amrnb", 8_000),
        ("3gp", "libopencore_amrnb", 8_000),
        ("asf", "wmav2", 44_100),
    ],
)
@pytest.mark.parametrize("channels", [1, 2])
def test_media_formats_come_close_to_the_samples(fmt, codec, rate, channels):
    if "amr" in codec and channels == 2:
        pytest.skip("AMR is mono")
    written = babble(rate, 2.0, channels=channels)
    recording = read_recording(encode_media(written, rate, fmt, codec))
    mono = written if channels == 1 else written.mean(axis=1)
    least = 0.4 if "amr" in codec else 0.95  # a voice coder does badly on noise
    assert correlation(recording.samples, soxr.resample(mono, rate, 16_000)) > least
    assert recording.duration == pytest.approx(2.0, abs=0.1)
    assert "truncated" not in recording.quality


@pytest.mark.parametrize(("fmt", "codec"), [("matroska", "flac"), ("mov", "pcm_s16le")])
def test_lossless_media_equal_the_samples(fmt, codec):
    written = babble(16_000, channels=2)
    samples = load_audio(encode_media(written, 16_000, fmt, codec), channel="right")
    assert np.abs(samples - written[:, 1]).max() <= 2**-15


def test_alac_in_caf_equals_the_samples_but_for_the_last_packet():
    pytest.importorskip("av")
    written = babble(16_000, channels=2)
    samples = load_audio(encode(written, 16_000, "CAF", "ALAC_16"), channel="left")
    assert 16_000 - 4_096 < len(samples) <= 16_000  # FFmpeg trims the last packet twice
    assert np.abs(samples - written[: len(samples), 0]).max() <= 2**-15


def test_a_shortened_webm_is_flagged():
    whole = encode_media(babble(48_000, 4.0), 48_000, "webm", "libopus")
    recording = read_recording(whole[: len(whole) // 2])
    assert recording.quality == ("truncated",)
    assert 1.0 < recording.duration < 3.0


def test_media_without_pyav_names_the_extra(monkeypatch):
    file = encode_media(babble(16_000), 16_000, "ipod", "aac")
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(DependencyError, match=r'pip install "emoser\[media\]"'):
        load_audio(file)


def test_a_video_without_sound_is_refused():
    av = pytest.importorskip("av")
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="matroska") as container:
        stream = container.add_stream("ffv1", rate=5)
        stream.width = stream.height = 16
        stream.pix_fmt = "yuv420p"
        container.mux(stream.encode(av.VideoFrame(16, 16, "yuv420p")))
        container.mux(stream.encode(None))
    with pytest.raises(AudioError, match="no sound track"):
        load_audio(buffer.getvalue())


@pytest.mark.parametrize("mode", ["CONSTANT", "VARIABLE", "AVERAGE"])
def test_an_mp3_without_information_frame_is_read_to_its_end(mode, tmp_path):
    loudness = np.repeat(np.linspace(0.01, 1, 10) ** 2, 16_000).astype(np.float32)
    path = tmp_path / "vbr.mp3"
    soundfile.write(path, babble(16_000, 10.0) * loudness, 16_000, bitrate_mode=mode)
    file = path.read_bytes()
    start = max(file.find(b"Xing", 0, 64), file.find(b"Info", 0, 64))
    assert start > 0
    recording = read_recording(file[file.index(file[:2], 4) :])
    assert recording.duration == pytest.approx(10.0, abs=0.1)
    assert "truncated" not in recording.quality


@pytest.mark.parametrize("name", ["song.mp3", "song.txt", "song", "song.m3u8"])
def test_content_decides_not_the_extension(name, tmp_path):
    path = tmp_path / name
    path.write_bytes(encode(babble(16_000), 16_000, "WAV", "FLOAT"))
    assert np.array_equal(load_audio(path), babble(16_000))


def test_tags_before_the_sound_are_skipped():
    tag = b"ID3\x03\0\0" + bytes([0, 4, 0, 0]) + bytes(65_536)
    for fmt in ("MP3", "FLAC"):
        file = encode(babble(16_000), 16_000, fmt)
        assert np.array_equal(load_audio(tag + file), load_audio(file))


def test_values_beyond_full_scale_are_kept():
    loud = 3 * babble(16_000)
    assert np.array_equal(load_audio(encode(loud, 16_000, "WAV", "FLOAT")), loud)


@pytest.mark.parametrize("channels", [2, 3, 8])
def test_mix_is_the_mean_and_channels_are_picked(channels):
    written = babble(16_000, channels=channels)
    file = encode(written, 16_000, "WAV", "FLOAT")
    assert np.allclose(load_audio(file), written.mean(axis=1), atol=1e-7)
    assert np.array_equal(load_audio(file, channel="left"), written[:, 0])
    assert np.array_equal(load_audio(file, channel="right"), written[:, 1])
    assert np.array_equal(load_audio(file, channel=channels - 1), written[:, -1])


def test_a_channel_that_is_not_there_is_refused():
    file = encode(babble(16_000), 16_000)
    for channel in ("right", 1, -1):
        with pytest.raises(ValueError, match="has 1 channel"):
            load_audio(file, channel=channel)
    with pytest.raises(ValueError, match="'mix', 'left', 'right' or an index"):
        load_audio(file, channel="middle")
    with pytest.raises(TypeError, match="channel is True"):
        load_audio(file, channel=True)


def test_192_khz_with_8_channels_is_mixed_and_resampled():
    written = babble(192_000, 0.5, channels=8)
    expected = soxr.resample(written.mean(axis=1), 192_000, 16_000, quality="HQ")
    assert np.abs(load_audio(encode(written, 192_000, "WAV", "FLOAT")) - expected).max() < 1e-6


def test_facts_of_a_recording_are_known_when_it_is_opened(tmp_path):
    path = tmp_path / "stereo.flac"
    path.write_bytes(encode(babble(44_100, channels=2), 44_100, "FLAC"))
    with AudioBlocks(path) as blocks:
        assert (blocks.name, blocks.source_rate, blocks.num_channels) == (str(path), 44_100, 2)
        assert blocks.declared_seconds == 1.0
        with pytest.raises(RuntimeError, match="read on to the end"):
            _ = blocks.quality
        with pytest.raises(RuntimeError, match="read on to the end"):
            _ = blocks.duration
        assert sum(len(block) for block in blocks) == 16_000
        assert (blocks.duration, blocks.quality) == (1.0, ())


@pytest.mark.data
def test_real_speech_equals_libsndfile_and_soxr(speech_data):
    paths = [
        next(iter(sorted((speech_data / corpus).rglob("*.*"))))
        for corpus in ("ravdess", "nemo", "cremad", "librispeech", "picovoice")
    ]
    for path in paths:
        whole, rate = soundfile.read(path, dtype="float32")
        recording = read_recording(path)
        assert np.array_equal(recording.samples, soxr.resample(whole, rate, 16_000, quality="HQ"))
        assert recording.quality == ()
