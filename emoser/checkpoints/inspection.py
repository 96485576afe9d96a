"""What a checkpoint is, where its tensors go, and whether its numbers hold on this machine.

For `emoser doctor`; everything is measured on the folder itself. Knows nothing of audio.
"""

import re
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from emoser.checkpoints.configs import read_licence
from emoser.checkpoints.golden import answer_alone, answer_batched, read_golden
from emoser.checkpoints.layouts.registry import identify, load_checkpoint
from emoser.checkpoints.strict import place_names
from emoser.checkpoints.tensors import read_shapes
from emoser.checkpoints.weights import weight_files

EXACT = 1e-5  # of the largest logit


@dataclass(frozen=True)
class Inspection:
    """What was found.

    Attributes:
        layout: Name of the layout.
        encoder: What hears the sound.
        outputs: Pairs (name in the checkpoint, canonical name), in the order of the logits.
        dimensions: Those of the outputs that are values, not classes.
        places: Lines such as "layers.* -> encoder.layers.* (24)": which tensors went where.
        notes: What the layout chose where the file leaves a choice.
        licence: As the card states it.
        megabytes: Of the weight files.
        parameters: Number of weights.
        largest_logit: Of three known clips.
        batch_difference: Largest difference of a logit, alone against batched.
        golden_difference: Largest difference to the logits that the folder keeps; None
            without any.
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
        """Whether batches are exact and the kept logits are reached."""
        bound = EXACT * max(self.largest_logit, 1.0)
        return self.batch_difference <= bound and (self.golden_difference or 0.0) <= bound

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {**asdict(self), "sound": self.sound}


def inspect_checkpoint(folder: Path) -> Inspection:
    """Load a folder and measure it.

    Raises:
        CheckpointError: If it does not load.
    """
    shapes = read_shapes(folder)
    plan = identify(set(shapes), folder).plan(folder, shapes)
    loaded = load_checkpoint(folder)
    model, config = loaded.model, loaded.model.config
    alone = answer_alone(model)
    golden = read_golden(folder)
    return Inspection(
        layout=loaded.layout,
        encoder=config.encoder,
        outputs=tuple(zip(config.raw_labels, config.outputs, strict=True)),
        dimensions=config.dimensions,
        places=tuple(_summarize(place_names(plan, shapes))),
        notes=loaded.notes,
        licence=read_licence(folder),
        megabytes=sum(file.stat().st_size for file in weight_files(folder)) / 1e6,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        largest_logit=float(alone.abs().max()),
        batch_difference=float((answer_batched(model) - alone).abs().max()),
        golden_difference=None if golden is None else float((golden - alone).abs().max()),
    )


def _summarize(places: dict[str, str | None]) -> list[str]:
    """Names with their numbers starred, and how many tensors each line stands for."""
    pairs = Counter(
        (_star(name), "not used" if place is None else _star(place))
        for name, place in places.items()
    )
    return [f"{name} -> {place} ({count})" for (name, place), count in pairs.items()]


def _star(name: str) -> str:
    return re.sub(r"(?<=\.)\d+(?=\.)", "*", name)
