"""Logits that a checkpoint gave for known clips, kept beside it to be compared later.

The clips are drawn from a seed, so that no recording has to travel along. Knows nothing of
layouts.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from emoser.errors import CheckpointError
from emoser.models.model import EmotionModel

GOLDEN = "golden.json"
LENGTHS = (16_000, 5_000, 24_000)
SEED = 2026


def golden_clips() -> list[np.ndarray[Any, np.dtype[np.float32]]]:
    """Noise with a slow envelope, one clip per length in `LENGTHS`.

    Example:
        >>> [len(clip) for clip in golden_clips()]
        [16000, 5000, 24000]
    """
    generator = np.random.default_rng(SEED)
    clips = []
    for length in LENGTHS:
        envelope = np.abs(np.sin(np.linspace(0.0, generator.uniform(1.0, 9.0), length))) + 0.05
        noise = generator.standard_normal(length) * envelope * 0.1
        clips.append(noise.astype(np.float32))
    return clips


def answer_alone(model: EmotionModel) -> Tensor:
    """Calibrated logits of the clips, one after the other, (N, C)."""
    with torch.inference_mode():
        rows = [model(torch.from_numpy(clip)[None]).logits for clip in golden_clips()]
    return _calibrate(torch.cat(rows), model)


def answer_batched(model: EmotionModel) -> Tensor:
    """Calibrated logits of the clips as one padded batch, (N, C)."""
    clips = golden_clips()
    lengths = torch.tensor([len(clip) for clip in clips])
    batch = torch.zeros(len(clips), int(lengths.max()))
    for row, clip in zip(batch, clips, strict=True):
        row[: len(clip)] = torch.from_numpy(clip)
    with torch.inference_mode():
        return _calibrate(model(batch, lengths).logits, model)


def _calibrate(logits: Tensor, model: EmotionModel) -> Tensor:
    """Logits of labels divided by the temperature; dimensions as they are."""
    num_labels = len(model.config.labels)
    scaled = logits[:, :num_labels] / model.config.temperature
    return torch.cat([scaled, logits[:, num_labels:]], dim=1)


def golden_record(logits: Tensor, source: str, max_difference: float) -> dict[str, Any]:
    """What is written: whose logits, how they were made, and how near the writer came."""
    return {
        "seed": SEED,
        "lengths": list(LENGTHS),
        "source": source,
        "max_difference": max_difference,
        "logits": logits.tolist(),
    }


def read_golden(folder: Path) -> Tensor | None:
    """The logits that a folder keeps, (N, C); None without any.

    Raises:
        CheckpointError: If they are damaged or of other clips.
    """
    file = folder / GOLDEN
    if not file.is_file():
        return None
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        if record["seed"] != SEED or record["lengths"] != list(LENGTHS):
            raise CheckpointError(f"{file} is of other clips than this version of emoser draws")
        return torch.tensor(record["logits"], dtype=torch.float32)
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{file} is damaged: {error}") from error
