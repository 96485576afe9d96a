"""The layouts that emoser knows, and loading a folder of any of them.

A layout is recognised by the names of its tensors, never by what `config.json` calls itself.
What fits none is refused with the nearest one named.
"""

from collections.abc import Callable, Set
from dataclasses import dataclass
from pathlib import Path

from emoser.checkpoints.layouts import (
    ctc,
    ehcalabres,
    emoser,
    funasr,
    odyssey,
    soxan,
    speechbrain,
    transformers,
    vox_profile,
)
from emoser.checkpoints.strict import Plan, fit_model, shorten
from emoser.checkpoints.tensors import Shapes, read_shapes
from emoser.errors import CheckpointError
from emoser.models.model import EmotionModel


@dataclass(frozen=True)
class Layout:
    """One way of writing a speech-emotion model down.

    Attributes:
        name: What `ModelInfo.layout` says.
        signature: Tensors of its head that no other layout has together.
        matches: Whether a set of tensor names is of this layout.
        plan: What a folder with tensors of these shapes holds.
    """

    name: str
    signature: tuple[str, ...]
    matches: Callable[[Set[str]], bool]
    plan: Callable[[Path, Shapes], Plan]


LAYOUTS = tuple(
    Layout(module.NAME, module.SIGNATURE, module.matches, module.plan)
    for module in (
        emoser,
        transformers,
        soxan,
        ehcalabres,
        speechbrain,
        odyssey,
        vox_profile,
        funasr,
        ctc,
    )
)
"""In the order in which they are tried."""


@dataclass(frozen=True)
class LoadedModel:
    """A model, and how its folder was read.

    Attributes:
        model: In float32 on the CPU, ready to predict.
        layout: Name of its layout.
        notes: What the layout chose where the file leaves a choice.
    """

    model: EmotionModel
    layout: str
    notes: tuple[str, ...]


def load_checkpoint(folder: Path) -> LoadedModel:
    """The model of a folder of any layout.

    Raises:
        CheckpointError: If the layout is unknown or any part does not fit.
    """
    shapes = read_shapes(folder)
    layout = identify(set(shapes), folder)
    plan = layout.plan(folder, shapes)
    return LoadedModel(fit_model(plan, folder, layout.name), layout.name, plan.notes)


def identify(keys: Set[str], folder: Path) -> Layout:
    """The layout of tensors with these names.

    Raises:
        CheckpointError: If there is none, naming the nearest.
    """
    for layout in LAYOUTS:
        if layout.matches(keys):
            return layout
    near = max(LAYOUTS, key=lambda layout: len(set(layout.signature) & keys))
    lacking = sorted(set(near.signature) - keys)
    starts = sorted({key.split(".")[0] for key in keys})
    if len(lacking) == len(near.signature):
        raise CheckpointError(
            f"{folder} has no classification head of a layout that emoser knows "
            f"({', '.join(layout.name for layout in LAYOUTS)}); its tensors begin with "
            f"{shorten(starts, 8)}"
        )
    raise CheckpointError(
        f"{folder} has no classification head of a layout that emoser knows; the nearest is "
        f"{near.name!r}, which also needs {', '.join(lacking)}; its tensors begin with "
        f"{shorten(starts, 8)}"
    )
