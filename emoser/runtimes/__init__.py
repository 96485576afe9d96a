"""One call, several engines: recordings in, logits and embeddings out, as NumPy arrays.

`open_runtime` picks the engine and imports it; nothing heavy is imported before. Knows nothing
of label names or audio formats.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from emoser.checkpoints.location import Checkpoint
from emoser.configuration import ModelConfig, ModelInfo

if TYPE_CHECKING:
    import torch

BACKENDS = ("auto", "torch")
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
            where one recording at a time is fastest.
    """

    batch_seconds: float | None

    def infer(self, recordings: Sequence[Samples]) -> Answer:
        """Logits and embeddings of one batch of mono recordings at the model's rate."""
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
    checkpoint: Checkpoint,
    *,
    device: "str | torch.device" = "auto",
    dtype: str = "auto",
    backend: str = "auto",
) -> OpenedModel:
    """Load a checkpoint into an engine.

    Raises:
        ValueError: If the backend, device or dtype is none that emoser knows.
        CheckpointError: If the checkpoint does not fit.
        DeviceError: If the device is not there.
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend is {backend!r}; use one of {', '.join(BACKENDS)}")
    from emoser.runtimes.torch_runtime import open_torch

    return open_torch(checkpoint, device=device, dtype=dtype)
