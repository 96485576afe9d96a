"""The voice activity detector silero-vad, run from the model files of its package.

Its ONNX file runs in ONNX Runtime where that is installed, else its TorchScript file in torch.
The package itself is not imported: importing it sets the number of threads of torch for the
whole process.
"""

import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from emoser.errors import missing_extra
from emoser.inference.vad import Flags, Frames

SPEECH_PROBABILITY = 0.5  # the default of silero-vad
CONTEXTS = {8_000: 32, 16_000: 64}
"""Rates that the model takes, and the samples before a frame that it also takes."""
STATE_SHAPE = (2, 1, 128)

Array: TypeAlias = npt.NDArray[np.float32]
Step: TypeAlias = Callable[[Array], float]


class SileroDetector:
    """Speech is where silero-vad gives a probability above one half; for one recording.

    Args:
        sampling_rate: Of the samples in Hz, 8,000 or 16,000.

    Raises:
        DependencyError: If the package silero-vad is not installed.
        ValueError: If the rate is another.
    """

    def __init__(self, sampling_rate: int) -> None:
        if sampling_rate not in CONTEXTS:
            raise ValueError(
                f"vad='silero' works at 8,000 and 16,000 Hz and this model at {sampling_rate:,}; "
                "use vad='energy'"
            )
        with_onnx = find_spec("onnxruntime") is not None
        open_model = open_onnx if with_onnx else open_torchscript
        self._step = open_model(find_models(), sampling_rate)

    def detect(self, frames: Frames) -> Flags:
        """Whether each frame has speech, (n, samples of a frame) -> (n,)."""
        return np.asarray(self.probabilities(frames) > SPEECH_PROBABILITY)

    def probabilities(self, frames: Frames) -> Array:
        """The probability of speech in each frame, (n, samples of a frame) -> (n,)."""
        steps = (self._step(frame[np.newaxis]) for frame in np.ascontiguousarray(frames))
        return np.fromiter(steps, np.float32, len(frames))


def find_models() -> Path:
    """The folder with the model files of silero-vad.

    Raises:
        DependencyError: If the package silero-vad is not installed.
    """
    found = find_spec("silero_vad")  # finds the package without importing it
    if found is None or not found.submodule_search_locations:
        raise missing_extra("vad='silero'", "vad")
    return Path(found.submodule_search_locations[0]) / "data"


def open_onnx(folder: Path, sampling_rate: int) -> Step:
    """A new recording in ONNX Runtime: each frame, (1, samples), to its probability of speech."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.inter_op_num_threads = options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        folder / "silero_vad.onnx", options, providers=["CPUExecutionProvider"]
    )
    rate, size = np.array(sampling_rate, np.int64), CONTEXTS[sampling_rate]
    state, context = np.zeros(STATE_SHAPE, np.float32), np.zeros((1, size), np.float32)

    def step(frame: Array) -> float:
        nonlocal state, context
        samples = np.concatenate([context, frame], axis=1)
        probability, state = session.run(None, {"input": samples, "state": state, "sr": rate})
        context = frame[:, -size:]
        return float(probability[0, 0])

    return step


def open_torchscript(folder: Path, sampling_rate: int) -> Step:
    """As `open_onnx`, in torch; the model keeps its state and context itself."""
    import torch

    with warnings.catch_warnings():  # recent torch deprecates the format that the package ships
        warnings.simplefilter("ignore", FutureWarning)
        model: Any = torch.jit.load(folder / "silero_vad.jit", map_location="cpu")  # type: ignore[no-untyped-call]

    def step(frame: Array) -> float:
        with torch.inference_mode():
            return float(model(torch.from_numpy(frame), sampling_rate))

    return step
