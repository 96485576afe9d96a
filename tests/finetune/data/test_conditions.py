"""Each condition does to a recording what its name says, measured by other means."""

import importlib.util

import numpy as np
import pytest
from scipy import signal

from emoser import load_audio
from emoser.finetune.data.conditions import CODECS, encode, has_encoder, list_conditions

RATE = 16_000
CODED = [name for name, codec in CODECS.items() if has_encoder(codec)]


@pytest.fixture(scope="module")
def clip(pytestconfig):
    return load_audio(pytestconfig.rootpath / "examples/audio/plain.wav")


@pytest.fixture(scope="module")
def changed(clip):
    conditions, _ = list_conditions()
    return {name: one(clip, np.random.default_rng(1)) for name, one in conditions.items()}


def power(samples, low, high):
    frequencies, density = signal.welch(samples, RATE, nperseg=1024)
    return float(density[(frequencies >= low) & (frequencies < high)].sum())


def decibels(ratio):
    return 10 * np.log10(ratio)


def test_levels_lengths_and_clipping(clip, changed):
    assert np.allclose(changed["gain -20 dB"] * 10, clip, atol=1e-6)
    assert np.allclose(changed["gain +20 dB"] / 10, clip, atol=1e-6)
    peak = np.abs(clip).max()
    assert np.abs(changed["clipping"]).max() == pytest.approx(peak / 10)
    quiet = np.abs(clip) < peak / 10
    assert np.array_equal(changed["clipping"][quiet], clip[quiet])
    assert len(changed["speed -10 %"]) == pytest.approx(len(clip) / 0.9, abs=2)
    assert len(changed["speed +10 %"]) == pytest.approx(len(clip) / 1.1, abs=2)
    longer = changed["quiet ends added"]
    assert np.array_equal(longer[RATE:-RATE], clip)
    assert 0 < np.abs(longer[:RATE]).max() < 0.003
    assert len(changed["quiet ends cut off"]) < len(clip)


@pytest.mark.parametrize("ratio", [20, 10, 5])
def test_noise_has_the_ratio_of_its_name(ratio, clip, changed):
    noise = changed[f"noise at {ratio} dB"] - clip
    assert decibels(np.square(clip).mean() / np.square(noise).mean()) == pytest.approx(
        ratio, abs=0.1
    )


def test_bands_are_limited(clip, changed):
    for name, low, high in (("telephone band", 300, 3400), ("8 kHz and back", 0, 3800)):
        kept = power(changed[name], low + 100, high - 200) / power(clip, low + 100, high - 200)
        assert decibels(kept) == pytest.approx(0, abs=0.2)
        assert decibels(power(changed[name], 4300, 8000) / power(clip, 4300, 8000)) < -30
    assert decibels(power(changed["telephone band"], 0, 200) / power(clip, 0, 200)) < -20


def test_a_room_prolongs_the_sound():
    beep = np.zeros(2 * RATE, np.float32)
    beep[:800] = 0.5 * np.sin(np.arange(800) * 0.3)
    conditions, _ = list_conditions()
    after = conditions["reverberation"](beep, np.random.default_rng(0))
    early, late = (np.square(after[at : at + 1600]).mean() for at in (1600, 1600 + 4800))
    assert decibels(early / late) == pytest.approx(30, abs=6)  # 60 dB in 0.6 s, half in 0.3 s


@pytest.mark.skipif(not CODED, reason="needs PyAV")
@pytest.mark.parametrize("name", CODED)
def test_codecs_keep_the_spectrum_of_the_voice_and_the_length(name, clip, changed):
    coded = changed[name]
    assert len(coded) == pytest.approx(len(clip), abs=0.1 * RATE)
    assert not np.allclose(coded[: len(clip)], clip[: len(coded)], atol=1e-3)
    before, after = (
        np.log(signal.spectrogram(part[: 2 * RATE], RATE, nperseg=512)[2][10:100] + 1e-9)
        for part in (clip, coded)
    )
    assert np.corrcoef(before.ravel(), after.ravel())[0, 1] > 0.8


def test_what_cannot_be_encoded_is_named(monkeypatch):
    conditions, missing = list_conditions()
    assert {*conditions} & {*CODECS} == {*CODECS} - {*missing}
    if importlib.util.find_spec("av") is not None:
        assert {"Opus at 16 kbit/s", "MP3 at 32 kbit/s"} <= {*conditions}
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    monkeypatch.setitem(__import__("sys").modules, "av.codec", None)
    conditions, missing = list_conditions()
    assert set(missing) == set(CODECS)
    assert not {*conditions} & {*CODECS}
    with pytest.raises(ImportError):
        encode(np.zeros(RATE, np.float32), CODECS["Opus at 16 kbit/s"])
