"""What a checkpoint is, where its tensors go, and whether its numbers hold on this machine.

For `emoser doctor`. Logits are compared on known clips, drawn from a seed so that no recording
has to be stored; a converted checkpoint keeps its logits of them in `golden.json`.
"""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from emoser.checkpoints.boundary import reading
from emoser.checkpoints.files import GOLDEN, CheckpointFiles, as_files
from emoser.checkpoints.layouts.registry import load_checkpoint
from emoser.errors import CheckpointError
from emoser.models.model import EmotionModel

EXACT = 1e-5  # of the largest logit
LENGTHS = (16_000, 5_000, 24_000)  # samples of the known clips
SEED = 2026


@dataclass(frozen=True)
class Inspection:
    """The findings about a checkpoint.

    Attributes:
        layout: Name of the layout.
        encoder: `model_type` of the encoder.
        outputs: Pairs (name in the checkpoint, canonical name), in the order of the logits.
        dimensions: The outputs that are values, not classes.
        places: Lines such as "layers.* -> encoder.layers.* (24)": which tensors went where.
        notes: Choices of the layout where the files leave one open.
        licence: Licence as the card states it.
        megabytes: Size of the weight files.
        parameters: Number of weights.
        largest_logit: Largest absolute logit of three known clips.
        batch_difference: Largest difference of a logit between single clips and a batch.
        golden_difference: Largest difference to the logits stored in the folder; None if there
            are none.
    """

    layout: str
    encoder: str
    outputs: tuple[tuple[str, str], ...]
    dimensions: tuple[str, ...]
    places: tuple[str, ...]
    notes: tuple[str, ...]
    licence: str | None
    megabytes: float
    parameters: int
    largest_logit: float
    batch_difference: float
    golden_difference: float | None

    @property
    def sound(self) -> bool:
        """Whether batches are exact and the stored logits are reproduced."""
        bound = EXACT * max(self.largest_logit, 1.0)
        return self.batch_difference <= bound and (self.golden_difference or 0.0) <= bound

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {**asdict(self), "sound": self.sound}


def inspect_checkpoint(source: CheckpointFiles | Path) -> Inspection:
    """Load a checkpoint and measure it."""
    files = as_files(source)
    loaded = load_checkpoint(files)
    model, config = loaded.model, loaded.model.config
    alone = answer_alone(model)
    golden = read_golden(files)
    if golden is not None and golden.shape != alone.shape:
        raise CheckpointError(
            f"{files.folder / GOLDEN} has logits of shape {tuple(golden.shape)} and the model "
            f"{tuple(alone.shape)}; convert the checkpoint again"
        )
    return Inspection(
        layout=loaded.layout,
        encoder=config.encoder,
        outputs=tuple(zip(config.raw_labels, config.outputs, strict=True)),
        dimensions=config.dimensions,
        places=tuple(_summarize(loaded.places)),
        notes=loaded.notes,
        licence=files.licence,
        megabytes=sum(files.stamps[name].size for name in files.weights) / 1e6,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        largest_logit=float(alone.abs().max()),
        batch_difference=float((answer_batched(model) - alone).abs().max()),
        golden_difference=None if golden is None else float((golden - alone).abs().max()),
    )


def golden_clips() -> list[npt.NDArray[np.float32]]:
    """The known clips: noise with a slow envelope, one clip per length in `LENGTHS`.

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
    """Calibrated logits of the known clips, one after the other, (N, C)."""
    with torch.inference_mode():
        rows = [model(torch.from_numpy(clip)[None]).logits for clip in golden_clips()]
    return _calibrate(torch.cat(rows), model)


def answer_batched(model: EmotionModel) -> Tensor:
    """Calibrated logits of the known clips as one padded batch, (N, C)."""
    clips = [torch.from_numpy(clip) for clip in golden_clips()]
    lengths = torch.tensor([len(clip) for clip in clips])
    batch = pad_sequence(clips, batch_first=True)
    with torch.inference_mode():
        return _calibrate(model(batch, lengths).logits, model)


def golden_record(logits: Tensor, source: str, max_difference: float) -> dict[str, Any]:
    """The contents of `golden.json`, from logits (N, C) of the known clips.

    Those of the stored weights differ from them by at most `max_difference`.
    """
    return {
        "seed": SEED,
        "lengths": list(LENGTHS),
        "source": source,
        "max_difference": max_difference,
        "logits": logits.tolist(),
    }


def read_golden(files: CheckpointFiles) -> Tensor | None:
    """The logits stored in `golden.json`, (N, C); None if there is no such file."""
    if GOLDEN not in files.stamps:
        return None
    file = files.folder / GOLDEN
    with reading(file):
        record = files.read_json(GOLDEN)
        if record["seed"] != SEED or record["lengths"] != list(LENGTHS):
            raise CheckpointError(f"{file} is of other clips than this version of emoser draws")
        return torch.tensor(record["logits"], dtype=torch.float32)


def _calibrate(logits: Tensor, model: EmotionModel) -> Tensor:
    """Logits of labels divided by the temperature; those of dimensions unchanged."""
    num_labels = len(model.config.labels)
    scaled = logits[:, :num_labels] / model.config.temperature
    return torch.cat([scaled, logits[:, num_labels:]], dim=1)


def _summarize(places: Mapping[str, str | None]) -> list[str]:
    """One line for all tensors whose names differ in numbers only, with their count."""
    lines = Counter(
        re.sub(r"(?<=\.)\d+(?=\.)", "*", f"{name} -> {place or 'not used'}")
        for name, place in places.items()
    )
    return [f"{line} ({count})" for line, count in lines.items()]
