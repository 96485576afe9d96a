"""Each flag comes up for its fault, and none for clean speech."""

import csv

import numpy as np
import pytest
import soxr
from support.audio_files import babble, encode, read_recording

from emoser.audio.quality import FLAGS, QualityMeter


def flags(samples, rate=16_000):
    return read_recording(samples, sampling_rate=rate).quality


def through_telephone(samples, rate):
    """Mu-law at 8 kHz, brought back to `rate` and stored in 16 bit."""
    narrow = soxr.resample(samples, rate, 8_000)
    coded = np.sign(narrow) * np.log1p(255 * np.abs(narrow)) / np.log(256)
    coded = np.round(coded * 127) / 127
    narrow = np.sign(coded) * np.expm1(np.abs(coded) * np.log(256)) / 255
    samples = soxr.resample(narrow.astype("f4"), 8_000, rate).clip(-1, 1)
    return np.round(samples * 32_767).astype(np.int16)


@pytest.mark.parametrize("rate", [16_000, 22_050, 44_100, 48_000, 192_000])
@pytest.mark.parametrize("level", [1.0, 0.1, 0.01])
def test_a_clean_recording_has_no_flag(rate, level):
    assert flags(level * babble(rate), rate) == ()


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100])
def test_digital_silence_and_a_faint_hiss_are_silence(rate):
    hiss = np.random.default_rng(0).standard_normal(rate).astype("f4") * 1e-4
    assert "silence" in flags(np.zeros(rate, "f4"), rate)
    assert "silence" in flags(hiss, rate)


def test_a_constant_is_dc_and_silence():
    assert flags(np.full(16_000, 0.3, "f4")) == ("silence", "dc")
    assert flags(babble(16_000) + np.float32(0.05)) == ("dc",)


@pytest.mark.parametrize("rate", [16_000, 44_100, 192_000])
def test_clipping_is_seen_also_after_it_was_turned_down(rate):
    clipped = np.clip(5 * babble(rate), -1, 1)
    for gain in (1.0, 0.5, 0.1):
        assert flags(gain * clipped, rate) == ("clipped",)
    square = np.sign(np.sin(2 * np.pi * 200 * np.arange(rate) / rate)).astype("f4")
    assert "clipped" in flags(square, rate)


def test_loud_samples_that_are_not_flat_are_not_clipped():
    assert flags(3 * babble(16_000)) == ()
    tone = np.sin(2 * np.pi * 330 * np.arange(16_000) / 16_000)
    assert "clipped" not in flags(tone)


@pytest.mark.parametrize("rate", [4_000, 8_000, 11_025])
def test_a_low_sampling_rate_is_narrow_band(rate):
    assert flags(babble(rate), rate) == ("narrow-band",)


@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_a_telephone_recording_brought_to_a_higher_rate_is_narrow_band(rate):
    assert flags(through_telephone(babble(rate), rate), rate) == ("narrow-band",)
    assert read_recording(encode(through_telephone(babble(rate), rate), rate, "FLAC")).quality == (
        "narrow-band",
    )


def test_under_half_a_second_is_short():
    assert flags(babble(16_000)[:7_999]) == ("short",)
    assert flags(babble(16_000)[:8_000]) == ()


@pytest.mark.parametrize("step", [1_000, 7_001, 96_000])
def test_plateaus_count_wherever_the_peak_lies(step):
    """What is near the peak so far is counted; only a later, higher peak makes it void."""
    clipped = np.clip(5 * babble(48_000), -0.5, 0.5)
    for first, second in ((clipped, 1.8 * babble(48_000)), (babble(48_000) * 0.1, clipped)):
        meter = QualityMeter(48_000)
        joined = np.concatenate([first, second]).astype(np.float32)
        for start in range(0, len(joined), step):
            meter.update(joined[start : start + step])
        meter.update_resampled(joined[::3])
        assert ("clipped" in meter.flags()) is (second is clipped)


def test_flags_come_in_a_fixed_order():
    meter = QualityMeter(8_000)
    meter.update(np.full(100, 0.5, np.float32))
    meter.update_resampled(np.full(200, 0.5, np.float32))
    found = meter.flags(truncated=True)
    assert found == ("silence", "dc", "narrow-band", "short", "truncated")
    assert [flag for flag in FLAGS if flag in found] == list(found)


@pytest.mark.data
def test_clean_speech_is_hardly_ever_flagged_and_telephone_speech_always(speech_data):
    with (speech_data / "manifest.csv").open(newline="") as file:
        paths = [speech_data / row["path"] for row in csv.DictReader(file)][::100]
    clean = [read_recording(path) for path in paths]
    flagged = [recording.quality for recording in clean if recording.quality]
    assert len(flagged) <= 0.02 * len(clean), flagged
    for recording in clean[::3]:
        telephone = through_telephone(recording.samples, 16_000)
        assert "narrow-band" in flags(telephone)
        driven = recording.samples * (4 / np.abs(recording.samples).max())
        assert "clipped" in flags(np.clip(driven, -1, 1))
