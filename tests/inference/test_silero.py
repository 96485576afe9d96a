"""silero-vad through its own files: the package's own probabilities, in blocks of any size."""

import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest
from support.fakes import voice_and_pauses

from emoser.audio import load_audio
from emoser.errors import DependencyError
from emoser.inference.silero import SileroDetector, find_models, open_onnx, open_torchscript
from emoser.inference.vad import count_frame_samples

needs_silero = pytest.mark.skipif(
    find_spec("silero_vad") is None, reason="silero-vad is not installed"
)
CLIPS = ["plain.wav", "telephone.wav", "loud.flac"]
OWN = """
import sys, numpy as np, torch
from silero_vad import load_silero_vad
model = load_silero_vad(onnx=sys.argv[1] == "onnx")
rows = torch.from_numpy(np.load(sys.argv[2]))
np.save(sys.argv[3], [float(model(row[None], int(sys.argv[4]))) for row in rows])
"""


def read_frames(name, rate=16_000):
    samples = load_audio(f"examples/audio/{name}", target_rate=rate)
    size = count_frame_samples(rate)
    return samples[: len(samples) // size * size].reshape(-1, size)


@needs_silero
@pytest.mark.parametrize("clip", CLIPS)
@pytest.mark.parametrize(("kind", "open_model"), [("onnx", open_onnx), ("jit", open_torchscript)])
@pytest.mark.parametrize("rate", [pytest.param(8_000, marks=pytest.mark.slow), 16_000])
def test_probabilities_are_those_of_the_package(tmp_path, clip, kind, open_model, rate):
    if kind == "onnx":
        pytest.importorskip("onnxruntime")
    frames = read_frames(clip, rate)
    np.save(tmp_path / "frames.npy", frames)
    paths = [str(tmp_path / name) for name in ("frames.npy", "own.npy")]
    # In a process of its own, because importing the package changes torch's threads.
    subprocess.run(
        [sys.executable, "-c", OWN, kind, *paths, str(rate)], check=True, capture_output=True
    )
    own = np.load(paths[1])
    step = open_model(find_models(), rate)
    ours = [step(frame[None]) for frame in frames]
    np.testing.assert_allclose(ours, own, atol=1e-4)
    np.testing.assert_allclose(SileroDetector(rate).probabilities(frames), own, atol=1e-4)
    assert own.max() > 0.5


@needs_silero
def test_blocks_of_any_size_give_the_same_probabilities():
    frames = read_frames("plain.wav")
    whole = SileroDetector(16_000).probabilities(frames)
    detector = SileroDetector(16_000)
    sizes = range(0, len(frames), 7)
    parts = np.concatenate([detector.probabilities(frames[i : i + 7]) for i in sizes])
    np.testing.assert_array_equal(parts, whole)
    assert len(detector.probabilities(frames[:0])) == 0


@needs_silero
def test_noise_is_not_speech():
    noise = voice_and_pauses([(2.048, 0.05)]).reshape(-1, 512)
    assert SileroDetector(16_000).detect(noise).mean() < 0.05


@needs_silero
def test_torchs_threads_stay_as_they_are(monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.delitem(sys.modules, "silero_vad", raising=False)  # of other tests
    before = torch.get_num_threads()
    SileroDetector(16_000)
    open_torchscript(find_models(), 16_000)
    assert torch.get_num_threads() == before
    assert "silero_vad" not in sys.modules


@needs_silero
def test_other_rates_are_refused():
    with pytest.raises(ValueError, match="this model at 22,050; use vad='energy'"):
        SileroDetector(22_050)


def test_without_the_package_the_error_names_the_extra(monkeypatch):
    monkeypatch.setattr("emoser.inference.silero.find_spec", lambda name: None)
    with pytest.raises(DependencyError, match=r"emoser\[vad\]"):
        SileroDetector(16_000)
