"""Compare an engine with the model that its graph was made from.

Compares logits, embeddings and frames on clips of many lengths, including some below the
receptive field. Needs torch.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from emoser.errors import CheckpointError
from emoser.models.model import EmotionModel
from emoser.runtimes import FrameRuntime, Runtime, Samples

TOLERANCE = 1e-4  # relative to the largest number if that is above 1, else absolute
LENGTHS = (1, 399, 400, 5_000, 16_000, 33_333)
SEED = 16
SYNTHETIC = "synthetic voices"

Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Parity:
    """The differences between an engine and the model.

    Attributes:
        max_difference: Largest absolute difference of a logit.
        largest_logit: Largest absolute logit.
        embedding_difference: Largest absolute difference of an element of an embedding.
        frame_difference: Largest absolute difference of a probability of a frame; None for a
            model that does not classify frames.
        num_clips: Number of clips that were compared.
        clips: Description of the clips.
    """

    max_difference: float
    largest_logit: float
    embedding_difference: float
    frame_difference: float | None
    num_clips: int
    clips: str

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)


def proof_clips(sampling_rate: int = 16_000) -> list[Samples]:
    """Voice-like clips of many lengths: glides with overtones, pauses and breath noise.

    Example:
        >>> [len(clip) for clip in proof_clips()]
        [1, 399, 400, 5000, 16000, 33333]
    """
    generator = np.random.default_rng(SEED)
    clips = []
    for length in LENGTHS:
        times = np.arange(length) / sampling_rate
        pitch = generator.uniform(90, 250) * (1 + 0.2 * np.sin(2 * np.pi * times * 1.3))
        phase = 2 * np.pi * np.cumsum(pitch) / sampling_rate
        voice = sum(np.sin(number * phase) / number for number in range(1, 20))
        loudness = np.clip(np.sin(2 * np.pi * times * 2.1 + 1.0), 0.0, 1.0)
        breath = generator.standard_normal(length) * 0.01
        clips.append((0.1 * voice * loudness + breath).astype(np.float32))
    return clips


def prove_parity(
    runtime: Runtime, model: EmotionModel, subject: str, *, clips: Sequence[Samples] = ()
) -> Parity:
    """Compare an engine with the model on synthetic voices and on given clips.

    Args:
        runtime: The engine.
        model: The model, on the CPU.
        subject: Name of the engine in error messages.
        clips: Recordings at the model's rate, no longer than its `max_seconds`.

    Raises:
        CheckpointError: If the numbers differ by more than rounding explains.
    """
    rows = [_compare(runtime, model, clip) for clip in (*proof_clips(), *clips)]
    scales, logits, embedding_scales, embeddings, frames = zip(*rows, strict=True)
    parity = Parity(
        max_difference=max(logits),
        largest_logit=max(scales),
        embedding_difference=max(embeddings),
        frame_difference=None if model.config.frame_seconds is None else max(frames),
        num_clips=len(rows),
        clips=SYNTHETIC + (f" and {len(clips)} recordings" if clips else ""),
    )
    differences = {
        "logits": (parity.max_difference, max(parity.largest_logit, 1.0)),
        "embeddings": (parity.embedding_difference, max(*embedding_scales, 1.0)),
        "probabilities of frames": (parity.frame_difference or 0.0, 1.0),
    }
    for name, (difference, scale) in differences.items():
        if not difference <= TOLERANCE * scale:
            raise CheckpointError(
                f"{subject} gives other {name} than torch: they differ by up to {difference:.1e}, "
                f"and {TOLERANCE * scale:.1e} is allowed; use backend='torch'"
            )
    return parity


def _compare(
    runtime: Runtime, model: EmotionModel, clip: Samples
) -> tuple[float, float, float, float, float]:
    """Largest logit, its difference, the same for the embedding, and the difference of frames."""
    batch = torch.from_numpy(clip)[None]
    output = runtime.infer([clip])
    with torch.inference_mode():
        logits, embedding = (value.numpy() for value in model(batch))
    frame_difference = 0.0
    if model.config.frame_seconds is not None and isinstance(runtime, FrameRuntime):
        with torch.inference_mode():
            frames = model.classify_frames(batch).logits[0].softmax(dim=-1).numpy()
        frame_difference = _difference(runtime.infer_frames(clip), frames)
    return (
        float(np.abs(logits).max()),
        _difference(output.logits, logits),
        float(np.abs(embedding).max()),
        _difference(output.embeddings, embedding),
        frame_difference,
    )


def _difference(found: Array, expected: Array) -> float:
    """The largest absolute difference; infinite if the shapes differ or a number is not finite."""
    if found.shape != expected.shape or not np.isfinite(found).all():
        return float("inf")
    return float(np.abs(found - expected).max())
