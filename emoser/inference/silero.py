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

from emoser.audio import SAMPLING_RATE
from emoser.errors import missing_extra
from emoser.inference.vad import Flags, Frames

SPEECH_PROBABILITY = 0.5  # the default of silero-vad
CONTEXT = 64  # samples before a frame that the model also takes
STATE_SHAPE = (2, 1, 128)

Array: TypeAlias = npt.NDArray[np.float32]
Step: TypeAlias = Callable[[Array], float]


class SileroDetector:
    """Speech is where silero-vad gives a probability above one half; for one recording.

    Raises:
        DependencyError: If the package silero-vad is not installed.
    """

    def __init__(self) -> None:
        folder = find_models()
        with_onnx = find_spec("onnxruntime") is not None
        self._step = open_onnx(folder) if with_onnx else open_torchscript(folder)

    def detect(self, frames: Frames) -> Flags:
        """Whether each frame has speech, (n, 512) -> (n,)."""
        return np.asarray(self.probabilities(frames) > SPEECH_PROBABILITY)

    def probabilities(self, frames: Frames) -> Array:
        """The probability of speech in each frame, (n, 512) -> (n,)."""
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


def open_onnx(folder: Path) -> Step:
    """A new recording in ONNX Runtime: each frame, (1, 512), to its probability of speech."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.inter_op_num_threads = options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        folder / "silero_vad.onnx", options, providers=["CPUExecutionProvider"]
    )
    rate = np.array(SAMPLING_RATE, np.int64)
    state, context = np.zeros(STATE_SHAPE, np.float32), np.zeros((1, CONTEXT), np.float32)

    def step(frame: Array) -> float:
        nonlocal state, context
        samples = np.concatenate([context, frame], axis=1)  # (1, 576)
        probability, state = session.run(None, {"input": samples, "state": state, "sr": rate})
        context = frame[:, -CONTEXT:]
        return float(probability[0, 0])

    return step


def open_torchscript(folder: Path) -> Step:
    """As `open_onnx`, in torch; the model keeps its state and context itself."""
    import torch

    with warnings.catch_warnings():  # recent torch deprecates the format that the package ships
        warnings.simplefilter("ignore", FutureWarning)
        model: Any = torch.jit.load(folder / "silero_vad.jit", map_location="cpu")  # type: ignore[no-untyped-call]

    def step(frame: Array) -> float:
        with torch.inference_mode():
            return float(model(torch.from_numpy(frame), SAMPLING_RATE))

    return step
