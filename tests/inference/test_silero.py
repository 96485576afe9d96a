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

needs_silero = pytest.mark.skipif(
    find_spec("silero_vad") is None, reason="silero-vad is not installed"
)
CLIPS = ["plain.wav", "telephone.wav", "loud.flac"]
OWN = """
import sys, numpy as np, torch
from silero_vad import load_silero_vad
model = load_silero_vad(onnx=sys.argv[1] == "onnx")
rows = torch.from_numpy(np.load(sys.argv[2]))
np.save(sys.argv[3], [float(model(row[None], 16000)) for row in rows])
"""


def read_frames(name):
    samples = load_audio(f"examples/audio/{name}")
    return samples[: len(samples) // 512 * 512].reshape(-1, 512)


@needs_silero
@pytest.mark.parametrize("clip", CLIPS)
@pytest.mark.parametrize(("kind", "open_model"), [("onnx", open_onnx), ("jit", open_torchscript)])
def test_probabilities_are_those_of_the_package(tmp_path, clip, kind, open_model):
    if kind == "onnx":
        pytest.importorskip("onnxruntime")
    frames = read_frames(clip)
    np.save(tmp_path / "frames.npy", frames)
    paths = [str(tmp_path / name) for name in ("frames.npy", "own.npy")]
    # In a process of its own, because importing the package changes torch's threads.
    subprocess.run([sys.executable, "-c", OWN, kind, *paths], check=True, capture_output=True)
    own = np.load(paths[1])
    step = open_model(find_models())
    ours = [step(frame[None]) for frame in frames]
    np.testing.assert_allclose(ours, own, atol=1e-4)
    np.testing.assert_allclose(SileroDetector().probabilities(frames), own, atol=1e-4)
    assert own.max() > 0.5


@needs_silero
def test_blocks_of_any_size_give_the_same_probabilities():
    frames = read_frames("plain.wav")
    whole = SileroDetector().probabilities(frames)
    detector = SileroDetector()
    sizes = range(0, len(frames), 7)
    parts = np.concatenate([detector.probabilities(frames[i : i + 7]) for i in sizes])
    np.testing.assert_array_equal(parts, whole)
    assert len(detector.probabilities(frames[:0])) == 0


@needs_silero
def test_noise_is_not_speech():
    noise = voice_and_pauses([(2.048, 0.05)]).reshape(-1, 512)
    assert SileroDetector().detect(noise).mean() < 0.05


@needs_silero
def test_torchs_threads_stay_as_they_are():
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    SileroDetector()
    open_torchscript(find_models())
    assert torch.get_num_threads() == before
    assert "silero_vad" not in sys.modules


def test_without_the_package_the_error_names_the_extra(monkeypatch):
    monkeypatch.setattr("emoser.inference.silero.find_spec", lambda name: None)
    with pytest.raises(DependencyError, match=r"emoser\[vad\]"):
        SileroDetector()
