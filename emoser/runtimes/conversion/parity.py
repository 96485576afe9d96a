"""Compare an engine with the model that its graph was made from.

Compares logits, embeddings and frames on clips of many lengths, including some below the
receptive field. Needs torch.
"""

from collections.abc import Sequence
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
FRAMES = "probabilities of frames"

Array = npt.NDArray[np.float32]


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
) -> dict[str, Any]:
    """Compare an engine with the model on synthetic voices and on given clips.

    Args:
        runtime: The engine.
        model: The model, on the CPU.
        subject: Name of the engine in error messages.
        clips: Recordings at the model's rate, no longer than its `max_seconds`.

    Returns:
        The largest absolute difference of a logit (`max_difference`), of an element of an
        embedding and of a probability of a frame (None for a model without frames); the
        `largest_logit`; the number of clips, and what they were.

    Raises:
        CheckpointError: If the numbers differ by more than rounding explains.
    """
    rows = [
        _compare(runtime, model, clip)
        for clip in (*proof_clips(model.config.sampling_rate), *clips)
    ]
    measured = {name: np.max([row[name] for row in rows], axis=0).tolist() for name in rows[0]}
    for name, (difference, largest) in measured.items():
        allowed = TOLERANCE * max(largest, 1.0)
        if not difference <= allowed:
            raise CheckpointError(
                f"{subject} gives other {name} than torch: they differ by up to {difference:.1e}, "
                f"and {allowed:.1e} is allowed; use backend='torch'"
            )
    return {
        "max_difference": measured["logits"][0],
        "largest_logit": measured["logits"][1],
        "embedding_difference": measured["embeddings"][0],
        "frame_difference": measured[FRAMES][0] if FRAMES in measured else None,
        "num_clips": len(rows),
        "clips": SYNTHETIC + (f" and {len(clips)} recordings" if clips else ""),
    }


def _compare(
    runtime: Runtime, model: EmotionModel, clip: Samples
) -> dict[str, tuple[float, float]]:
    """The largest difference of each output, and its largest absolute number."""
    batch = torch.from_numpy(clip)[None]
    output = runtime.infer([clip])
    with torch.inference_mode():
        logits, embedding = (value.numpy() for value in model(batch))
        pairs = {"logits": (output.logits, logits), "embeddings": (output.embeddings, embedding)}
        if model.config.frame_seconds is not None and isinstance(runtime, FrameRuntime):
            frames = model.classify_frames(batch).logits[0].softmax(dim=-1).numpy()
            pairs[FRAMES] = (runtime.infer_frames(clip), frames)
    return {
        name: (_difference(found, expected), float(np.abs(expected).max()))
        for name, (found, expected) in pairs.items()
    }


def _difference(found: Array, expected: Array) -> float:
    """The largest absolute difference; infinite if the shapes differ or a number is not finite."""
    if found.shape != expected.shape or not np.isfinite(found).all():
        return float("inf")
    return float(np.abs(found - expected).max())
