"""The voice activity detector silero-vad, run with NumPy on the weights of its package.

Frames in, speech or not out, with the state of one recording. The package `silero_vad` itself
is never imported, because importing it sets the number of threads of torch for the whole
program; only the file with its weights is read. With the weights of the package's TorchScript
file the probabilities are the same to 5e-6; the safetensors file read here holds other weights,
which agree with those in 99.4 % of 6,044 frames of speech.
"""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt

from emoser.errors import missing_extra
from emoser.inference.vad import Flags, Frames

SPEECH_PROBABILITY = 0.5  # the detector's own default
WEIGHTS = "silero_vad_16k.safetensors"
CONTEXT = 64  # samples before a frame that the detector also hears
TRANSFORM = 256  # samples under one window of its spectrum
TRANSFORM_HOP = 128

Array = npt.NDArray[np.float32]


class SileroDetector:
    """Speech is what silero-vad takes for speech.

    Raises:
        DependencyError: If the package silero-vad is not installed.
    """

    def __init__(self) -> None:
        self._weights = load_weights()
        self._tail = np.zeros(CONTEXT, np.float32)
        width = self._weights["lstm_cell.weight_hh"].shape[1]
        self._hidden = np.zeros(width, np.float32)
        self._cell = np.zeros(width, np.float32)

    def detect(self, frames: Frames) -> Flags:
        """Whether somebody speaks in each frame, (n, 512) -> (n,)."""
        return np.asarray(self.probabilities(frames) > SPEECH_PROBABILITY)

    def probabilities(self, frames: Frames) -> Array:
        """The probability of speech in each frame, (n, 512) -> (n,)."""
        if not len(frames):
            return np.zeros(0, np.float32)
        before = np.concatenate([self._tail[np.newaxis], frames[:-1, -CONTEXT:]])  # (n, 64)
        self._tail = frames[-1, -CONTEXT:].copy()
        features = self._encode(np.concatenate([before, frames], axis=1))  # (n, 128)
        hidden = np.stack([self._step(row) for row in features])  # (n, 128)
        weight = self._weights["final_conv.weight"][0, :, 0]
        logits = np.maximum(hidden, 0) @ weight + self._weights["final_conv.bias"][0]
        return np.asarray(_sigmoid(logits), np.float32)

    def _encode(self, samples: Array) -> Array:
        padded = np.pad(samples, ((0, 0), (0, CONTEXT)), mode="reflect")  # (n, 640)
        windows = np.lib.stride_tricks.sliding_window_view(padded, TRANSFORM, axis=1)
        basis = self._weights["stft_conv.weight"][:, 0]  # (258, 256)
        spectrum = windows[:, ::TRANSFORM_HOP] @ basis.T  # (n, 4, 258)
        half = TRANSFORM // 2 + 1
        values = np.hypot(spectrum[..., :half], spectrum[..., half:])  # (n, 4, 129)
        for name, stride in (("conv1", 1), ("conv2", 2), ("conv3", 2), ("conv4", 1)):
            values = self._convolve(values, name, stride)
        return np.asarray(values[:, 0])

    def _convolve(self, values: Array, name: str, stride: int) -> Array:
        """A convolution over three neighbours and a ReLU: (n, L, D) -> (n, L', D')."""
        weight, bias = self._weights[f"{name}.weight"], self._weights[f"{name}.bias"]
        padded = np.pad(values, ((0, 0), (1, 1), (0, 0)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, 3, axis=1)[:, ::stride]
        # (n, L', D, 3) with (D', D, 3)
        flat = np.ascontiguousarray(windows).reshape(*windows.shape[:2], -1)
        return np.asarray(np.maximum(flat @ weight.reshape(len(weight), -1).T + bias, 0))

    def _step(self, features: Array) -> Array:
        """One step of the recurrent cell: (128,) -> (128,)."""
        gates = self._weights["lstm_cell.weight_ih"] @ features
        gates += self._weights["lstm_cell.weight_hh"] @ self._hidden
        gates += self._weights["lstm_cell.bias_ih"] + self._weights["lstm_cell.bias_hh"]
        take, keep, content, give = np.split(gates, 4)
        self._cell = _sigmoid(keep) * self._cell + _sigmoid(take) * np.tanh(content)
        self._hidden = _sigmoid(give) * np.tanh(self._cell)
        return np.asarray(self._hidden)


def load_weights() -> dict[str, Array]:
    """The weights of the detector, by name.

    Raises:
        DependencyError: If the package silero-vad is not installed.
    """
    found = find_spec("silero_vad")  # looks for the package without running it
    if found is None or not found.submodule_search_locations:
        raise missing_extra("vad='silero'", "vad")
    file = Path(found.submodule_search_locations[0]) / "data" / WEIGHTS
    if not file.is_file():
        raise missing_extra(f"vad='silero' ({WEIGHTS} is not in the silero-vad installed)", "vad")
    from safetensors.numpy import load_file

    weights = {name: value.astype(np.float32) for name, value in load_file(file).items()}
    return weights


def _sigmoid(values: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-values)), np.float32)
