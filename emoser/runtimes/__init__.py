"""One call, several engines: recordings in, logits and embeddings out, as NumPy arrays.

`open_runtime` picks the engine and imports it; nothing heavy is imported before. Knows nothing
of label names or audio formats.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from emoser.checkpoints.files import CheckpointFiles
from emoser.errors import CheckpointError
from emoser.models.config import ModelConfig, ModelInfo

if TYPE_CHECKING:
    import torch

BACKENDS = ("auto", "torch", "openvino", "onnx")
Samples = npt.NDArray[np.float32]


class Answer(NamedTuple):
    """What an engine says about N recordings.

    Attributes:
        logits: One row per recording, (N, C), float32.
        embeddings: The pooled encoder output of each, (N, D), float32.
    """

    logits: npt.NDArray[np.float32]
    embeddings: npt.NDArray[np.float32]


class Runtime(Protocol):
    """An engine that holds one model.

    Attributes:
        batch_seconds: How much audio the engine likes in one batch, padding included; None
            where padding does not pay.
        group_size: How many recordings the engine likes in one call of `infer` where it does
            not pad: it hears them side by side. 1 where one after another is as fast.
    """

    batch_seconds: float | None
    group_size: int

    def infer(self, recordings: Sequence[Samples]) -> Answer:
        """Logits and embeddings of mono recordings at the model's rate, of any lengths."""
        ...


@runtime_checkable
class FrameRuntime(Runtime, Protocol):
    """An engine that can tell about single frames."""

    def infer_frames(self, samples: Samples) -> npt.NDArray[np.float32]:
        """Probabilities of every frame of one recording, (L, C)."""
        ...


class FrameAnswers:
    """An engine whose answer for each recording is that for its frames.

    `infer` gives probabilities (N, L, C) in the place of logits, and no embeddings; the
    recordings must be equally long.
    """

    def __init__(self, runtime: FrameRuntime) -> None:
        self.runtime = runtime
        self.batch_seconds = runtime.batch_seconds
        self.group_size = 1

    def infer(self, recordings: Sequence[Samples]) -> Answer:
        """Probabilities of the frames of each recording."""
        rows = np.stack([self.runtime.infer_frames(samples) for samples in recordings])
        return Answer(rows, np.zeros((len(rows), 0), np.float32))


@dataclass(frozen=True)
class OpenedModel:
    """An engine with its model, and what the model says about itself."""

    runtime: Runtime
    config: ModelConfig
    info: ModelInfo


def open_runtime(
    checkpoint: CheckpointFiles,
    *,
    device: "str | torch.device" = "auto",
    dtype: str = "auto",
    backend: str = "auto",
) -> OpenedModel:
    """Load a checkpoint into an engine.

    Raises:
        ValueError: If the backend, device or dtype is none that emoser knows.
        CheckpointError: If the checkpoint does not fit.
        DependencyError: If the engine is not installed.
        DeviceError: If the device is not there.
    """
    from emoser.runtimes.opening import choose_backend, require_backend

    if backend not in BACKENDS:
        raise ValueError(f"backend is {backend!r}; use one of {', '.join(BACKENDS)}")
    if backend != "auto":
        require_backend(backend)
        return _open(checkpoint, device, dtype, backend)
    chosen = choose_backend(checkpoint, device=device, dtype=dtype)
    if chosen != "openvino" or not checkpoint.has_weights:
        return _open(checkpoint, device, dtype, chosen)
    try:
        return _open(checkpoint, device, dtype, chosen)
    except CheckpointError as error:  # torch can run what OpenVINO cannot express
        opened = _open(checkpoint, device, dtype, "torch")
        notes = (*opened.info.notes, f"run by torch: {error}")
        return replace(opened, info=replace(opened.info, notes=notes))


def _open(
    checkpoint: CheckpointFiles, device: "str | torch.device", dtype: str, backend: str
) -> OpenedModel:
    """Import an engine and load a checkpoint into it."""
    if backend == "openvino":
        from emoser.runtimes.openvino import open_openvino

        return open_openvino(checkpoint, device=device, dtype=dtype)
    if backend == "onnx":
        from emoser.runtimes.onnx import open_onnx

        return open_onnx(checkpoint, device=device, dtype=dtype)
    from emoser.runtimes.opening import refuse_graph_alone
    from emoser.runtimes.torch.engine import open_torch

    refuse_graph_alone(checkpoint)
    return open_torch(checkpoint, device=device, dtype=dtype)
