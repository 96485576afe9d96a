"""Reading in blocks: the same numbers as reading whole, in bounded memory."""

import io
import itertools
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
import soundfile
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st
from support.audio_files import babble, encode, read_recording

from emoser.audio import (
    AudioBlocks,
    AudioLimits,
    StreamResampler,
    load_audio,
)
from emoser.errors import AudioError

RATES = st.sampled_from([1_000, 8_000, 11_025, 16_000, 22_050, 44_100, 48_000, 96_000, 768_000])
PROPERTY = settings(max_examples=40, deadline=None, derandomize=True)


@PROPERTY
@given(
    rate=RATES,
    channels=st.sampled_from([1, 2, 5]),
    seconds=st.floats(0.01, 0.5),
    block_seconds=st.floats(0.001, 1.0),
    fmt=st.sampled_from(["WAV", "FLAC", "array"]),
)
def test_any_block_size_gives_the_numbers_of_reading_whole(
    rate, channels, seconds, block_seconds, fmt
):
    written = babble(48_000, 0.5, channels=channels)[: max(40, int(seconds * 48_000))]
    if fmt == "FLAC" and rate > 655_350:
        rate = 48_000
    source = written if fmt == "array" else encode(written, rate, fmt)
    known = {"sampling_rate": rate} if fmt == "array" else {}
    if len(written) * 16_000 < rate:
        return
    with AudioBlocks(source, block_seconds=block_seconds, **known) as blocks:
        parts = list(blocks)
        quality, duration = blocks.quality, blocks.duration
    whole = read_recording(source, **known)
    assert np.array_equal(np.concatenate(parts), whole.samples)
    assert (quality, duration) == (whole.quality, whole.duration)
    assert {len(part) for part in parts[:-1]} <= {max(1, round(block_seconds * 16_000))}
    assert 0 < len(parts[-1]) <= max(1, round(block_seconds * 16_000))


@PROPERTY
@given(rate=RATES, cuts=st.lists(st.integers(0, 9_600), max_size=20))
def test_a_resampled_stream_equals_soxr_in_one_piece(rate, cuts):
    samples = babble(48_000, 0.2)
    resampler = StreamResampler(rate)
    edges = [0, *sorted(cuts), len(samples)]
    parts = [resampler.push(samples[a:b]) for a, b in itertools.pairwise(edges)]
    joined = np.concatenate([*parts, resampler.flush()])
    assert np.array_equal(joined, soxr.resample(samples, rate, 16_000, quality="HQ"))


def test_a_flushed_stream_takes_no_more():
    resampler = StreamResampler(8_000)
    resampler.flush()
    with pytest.raises(ValueError, match="flushed"):
        resampler.push(babble(8_000))
    with pytest.raises(ValueError, match="positive rate"):
        StreamResampler(0)


@pytest.mark.parametrize("rate", [44_100, 48_000])
def test_a_sweep_above_8_khz_leaves_no_alias(rate):
    seconds = np.arange(rate * 2) / rate
    low, high = 9_000, 0.48 * rate
    phase = 2 * np.pi * (low * seconds + (high - low) / 4 * seconds**2)
    fade = np.minimum(1, np.minimum(seconds, 2 - seconds) * 20)  # no clicks at the ends
    alias = load_audio((0.9 * fade * np.sin(phase)).astype("f4"), sampling_rate=rate)
    assert np.sqrt(np.mean(alias**2)) < 10 ** (-100 / 20)


def test_a_tone_in_the_pass_band_keeps_its_level():
    seconds = np.arange(44_100) / 44_100
    for hertz in (100, 1_000, 4_000, 7_000):
        tone = load_audio(np.sin(2 * np.pi * hertz * seconds), sampling_rate=44_100)[1000:-1000]
        assert 20 * np.log10(tone.std() * np.sqrt(2)) == pytest.approx(0, abs=0.05)


def test_mixing_comes_before_resampling():
    left, right = babble(44_100, seed=1), babble(44_100, seed=2)
    mixed = load_audio(np.stack([left, right]), sampling_rate=44_100)
    assert np.array_equal(mixed, soxr.resample((left + right) / 2, 44_100, 16_000, quality="HQ"))


def test_a_recording_longer_than_the_limit_is_refused():
    hum = np.zeros((32_000, 1), np.int16)
    with pytest.raises(AudioError, match="longer than 1 s"):
        load_audio(hum, sampling_rate=16_000, limits=AudioLimits(max_seconds=1.0))
    with pytest.raises(AudioError, match=r"longer than 1.5 s, .* AudioBlocks"):
        load_audio(hum, sampling_rate=16_000, limits=AudioLimits(max_whole_seconds=1.5))
    limits = AudioLimits(max_whole_seconds=1.5)
    with AudioBlocks(hum, sampling_rate=16_000, limits=limits) as blocks:
        assert sum(map(len, blocks)) == 32_000


def test_rates_channels_and_bytes_have_limits():
    limits = AudioLimits(min_sampling_rate=16_000, max_channels=1, max_bytes=2**20)
    with pytest.raises(AudioError, match=r"a sampling rate of 8000 Hz .* and 2 channels"):
        load_audio(encode(babble(8_000, channels=2), 8_000), limits=limits)
    with pytest.raises(AudioError, match="larger than 1048576 bytes"):
        load_audio(bytes(2**20 + 1), limits=limits)
    with pytest.raises(ValueError, match="2 channels"):
        load_audio(babble(16_000, channels=2), sampling_rate=16_000, limits=limits)


@pytest.mark.parametrize("field", ["max_seconds", "max_bytes", "max_channels", "min_sampling_rate"])
def test_limits_check_themselves(field):
    with pytest.raises(ValueError, match=f"not positive: {field}"):
        AudioLimits(**{field: 0})
    with pytest.raises(ValueError, match="swap them"):
        AudioLimits(min_sampling_rate=8_000, max_sampling_rate=4_000)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_refused_with_their_place(bad):
    samples = babble(8_000, 2.0).copy()
    samples[12_000] = bad
    what = "NaN" if np.isnan(bad) else "infinity"
    for source, known in (
        (samples, {"sampling_rate": 8_000}),
        (encode(samples, 8_000, "WAV", "FLOAT"), {}),
    ):
        with pytest.raises(AudioError, match=rf"{what} at 1\.500 s"):
            load_audio(source, **known)


def test_a_float64_beyond_float32_is_refused():
    with pytest.raises(AudioError, match=r"infinity at 0\.000 s"):
        load_audio(np.full(1000, 1e300), sampling_rate=16_000)


@pytest.mark.parametrize("num_samples", [1, 399, 400])
def test_very_short_recordings_are_flagged_not_padded(num_samples):
    recording = read_recording(babble(16_000)[:num_samples], sampling_rate=16_000)
    assert len(recording.samples) == num_samples
    assert "short" in recording.quality


def test_one_sample_that_resamples_to_nothing_is_refused():
    with pytest.raises(AudioError, match="1 samples at 48000 Hz"):
        load_audio(np.zeros(1, "f4"), sampling_rate=48_000)


def test_block_seconds_must_be_positive():
    with pytest.raises(ValueError, match="block_seconds is 0"):
        AudioBlocks(babble(16_000), sampling_rate=16_000, block_seconds=0)


def test_an_abandoned_reader_leaves_the_callers_file_open(tmp_path):
    path = tmp_path / "call.wav"
    path.write_bytes(encode(babble(16_000, 2.0), 16_000))
    with path.open("rb") as file:
        with AudioBlocks(file, block_seconds=0.1) as blocks:
            next(blocks)
        assert file.tell() == 0
        assert len(load_audio(file)) == 32_000


def test_a_disk_error_is_an_error_of_both_kinds(tmp_path):
    class FailingDisk(io.FileIO):
        def readinto(self, buffer):
            if self.tell() > 100_000:
                raise OSError(5, "Input/output error")
            return super().readinto(buffer)

    path = tmp_path / "call.wav"
    path.write_bytes(encode(babble(16_000, 10.0), 16_000))
    with io.BufferedReader(FailingDisk(path)) as file:
        with pytest.raises(OSError, match=r"call.wav cannot be read .*input/output") as caught:
            load_audio(file)
    assert isinstance(caught.value, AudioError)
    assert caught.value.errno == 5


def write_silence(path, minutes):
    with soundfile.SoundFile(path, "w", 16_000, 1, "PCM_16", format="FLAC") as file:
        for _ in range(minutes):
            file.write(np.zeros(16_000 * 60, np.int16))


def test_memory_does_not_grow_with_the_length(tmp_path):
    peaks = []
    for minutes in (2, 6):
        path = tmp_path / f"{minutes}.flac"
        write_silence(path, minutes)
        with AudioBlocks(path, block_seconds=5.0) as blocks:
            next(blocks)
            tracemalloc.start()
            num_samples = sum(len(block) for block in blocks)
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
        assert num_samples == (60 * minutes - 5) * 16_000
    assert peaks[1] < peaks[0] + 100_000  # bytes; four minutes more are 15 MB
    assert peaks[1] < 4_000_000


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of the process from Linux")
def test_three_silent_hours_are_read_in_constant_memory(tmp_path):
    path = tmp_path / "bomb.flac"
    write_silence(path, 180)
    assert path.stat().st_size < 1_000_000
    code = (
        "import sys, resource; from emoser.audio import AudioBlocks\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024\n"
        "with AudioBlocks(sys.argv[1]) as blocks:\n"
        "    next(blocks); first = peak(); total = sum(map(len, blocks))\n"
        "    print(total, blocks.quality == ('silence',), peak() - first)\n"
    )
    run = subprocess.run([sys.executable, "-c", code, path], capture_output=True, check=True)
    total, is_silent, growth = run.stdout.split()
    assert (int(total), is_silent) == ((3 * 3600 - 30) * 16_000, b"True")
    assert float(growth) < 20  # MiB; the samples are 659
    with pytest.raises(AudioError, match="longer than 3600 s"):
        load_audio(path)
