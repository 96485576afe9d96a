"""The interface of an engine: recordings in, logits and embeddings out, as NumPy arrays.

`emoser.runtimes.opening` chooses an engine and opens a checkpoint with it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from emoser.errors import CheckpointError
from emoser.models.config import ModelConfig, ModelInfo

if TYPE_CHECKING:
    import torch

BACKENDS = ("auto", "torch", "openvino", "onnx")
Samples = npt.NDArray[np.float32]


class InferenceOutput(NamedTuple):
    """The outputs of a model for N recordings.

    Attributes:
        logits: One row per recording, (N, C), float32.
        embeddings: The pooled encoder output of each, (N, D), float32.
    """

    logits: npt.NDArray[np.float32]
    embeddings: npt.NDArray[np.float32]


class Runtime(Protocol):
    """An engine that holds one model.

    Attributes:
        batch_seconds: Preferred seconds of audio in one batch, padding included; None where
            padding does not pay.
        group_size: Preferred number of short recordings in one call of `infer` for an engine that
            does not pad but runs them in parallel; 1 for one that runs them one by one.
    """

    batch_seconds: float | None
    group_size: int

    def infer(self, recordings: Sequence[Samples]) -> InferenceOutput:
        """Logits and embeddings of mono recordings at the model's rate, of any lengths."""
        ...


@runtime_checkable
class FrameRuntime(Runtime, Protocol):
    """An engine that can also classify single frames."""

    def infer_frames(self, samples: Samples) -> npt.NDArray[np.float32]:
        """Probabilities of every frame of one recording, (L, C)."""
        ...


class FrameAdapter:
    """A `Runtime` whose output for a recording is that of its frames.

    `infer` gives probabilities (N, L, C) in place of logits, and no embeddings; the recordings
    must be equally long.
    """

    def __init__(self, runtime: FrameRuntime) -> None:
        self.runtime = runtime
        self.batch_seconds = runtime.batch_seconds
        self.group_size = 1

    def infer(self, recordings: Sequence[Samples]) -> InferenceOutput:
        """Probabilities of the frames of each recording."""
        rows = np.stack([self.runtime.infer_frames(samples) for samples in recordings])
        return InferenceOutput(rows, np.zeros((len(rows), 0), np.float32))


def check_finite(values: npt.NDArray[np.float32], subject: str) -> None:
    """Refuse outputs of an engine that are no numbers, which no label may be made of.

    Raises:
        CheckpointError: If one is NaN or infinite; `subject` is what they were computed from.
    """
    if not np.isfinite(values).all():
        raise CheckpointError(
            f"the model gives NaN or infinity for {subject}: it is damaged, or its numbers are too "
            "large for the precision; use dtype='float32' or another checkpoint"
        )


class EngineSettings(NamedTuple):
    """How an engine runs a model.

    Attributes:
        device: The device, or "auto".
        dtype: The precision, or "auto".
        num_streams: How many recordings run at the same time, in threads of the caller.
    """

    device: "str | torch.device" = "auto"
    dtype: str = "auto"
    num_streams: int = 1


@dataclass(frozen=True)
class OpenedModel:
    """An engine with its model, the model's configuration, and facts for the user."""

    runtime: Runtime
    config: ModelConfig
    info: ModelInfo


class OpenedGraph(NamedTuple):
    """An engine that holds an exported graph.

    Attributes:
        runtime: The engine.
        device: The device that it runs on.
        dtype: The precision of its arithmetic.
        notes: Remarks for the user, such as a precision that was replaced.
    """

    runtime: Runtime
    device: str
    dtype: str
    notes: tuple[str, ...] = ()
