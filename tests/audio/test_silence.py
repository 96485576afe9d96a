"""Nobody speaks in digital silence and faint steady noise, and somebody does in every clip."""

import csv

import numpy as np
import pytest
import soundfile as sf

from emoser.audio.quality import QualityMeter
from emoser.audio.silence import SilenceMeter, is_silent

RATE = 16_000


def silent(samples):
    meter = QualityMeter(RATE)
    meter.update(samples)
    meter.update_resampled(samples)
    return "silence" in meter.flags()


def hiss(seconds, level=1.0):
    generator = np.random.default_rng(0)
    return (level * generator.standard_normal(round(seconds * RATE))).astype(np.float32)


def hum(seconds, level):
    return (level * np.sin(2 * np.pi * 50 * np.arange(seconds * RATE) / RATE)).astype(np.float32)


@pytest.mark.parametrize("seconds", [0.01, 0.1, 1, 60])
@pytest.mark.parametrize("level", [0.0, 1e-6, 1e-4, 1e-3, 4e-3])
def test_digital_silence_and_faint_noise_are_silence_at_any_length(seconds, level):
    assert silent(hiss(seconds, level))


def test_hum_an_offset_and_noise_between_digital_silence_are_silence_too():
    assert silent(hum(3, 2e-3))
    assert silent(np.full(RATE, 0.3, np.float32))
    gap = np.zeros(RATE // 3, np.float32)
    assert silent(np.concatenate([gap, hiss(1.0, 1e-3), gap]))


def test_a_loud_steady_sound_is_not_silence():
    assert not silent(hiss(3, 0.1))
    assert not silent(hum(3, 0.1))


def test_the_size_of_the_blocks_changes_nothing():
    generator = np.random.default_rng(0)
    for _ in range(200):
        levels = generator.choice([-200.0, -48.0, -50.0, -54.5], size=12)
        meter = SilenceMeter()
        for block in np.split(levels, np.sort(generator.integers(0, 12, 4))):
            meter.update(block)
        assert meter.is_silent == is_silent(levels)


@pytest.mark.parametrize(
    "step", [199, pytest.param(3, marks=pytest.mark.slow)], ids=["91 clips", "6,000 clips"]
)
def test_no_real_clip_becomes_silence_however_quiet_it_is(speech_data, step):
    with open(speech_data / "manifest.csv", encoding="utf-8") as file:
        paths = [row["path"] for row in csv.DictReader(file)][::step]
    end = np.zeros(RATE, np.float32)
    for path in paths:
        clip, _ = sf.read(speech_data / path, dtype="float32")
        for gain in (1.0, 0.1, 0.01):
            quiet = clip * np.float32(gain)
            assert not silent(quiet), (path, gain)
            assert not silent(np.concatenate([end, quiet, end])), (path, gain)
