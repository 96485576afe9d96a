"""The layouts that emoser knows, and loading a folder of any of them.

A layout is recognised by the names of its tensors, never by what `config.json` calls itself.
What fits none is refused with the nearest one named.
"""

from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass
from pathlib import Path

from emoser.checkpoints.files import CheckpointFiles, as_files
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
from emoser.checkpoints.strict import Plan, fit_model, place_names
from emoser.checkpoints.tensors import Shapes, open_tensors
from emoser.errors import CheckpointError
from emoser.models.model import EmotionModel
from emoser.text import shorten


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
    plan: Callable[[CheckpointFiles, Shapes], Plan]


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
    """A model, and how its files were read.

    Attributes:
        model: In float32 on the CPU, ready to predict.
        layout: Name of its layout.
        notes: Choices of the layout where the files leave one open.
        places: The name in the model of every tensor by its name in the files; None for those
            that the model does not use.
    """

    model: EmotionModel
    layout: str
    notes: tuple[str, ...]
    places: Mapping[str, str | None]


def load_checkpoint(source: CheckpointFiles | Path) -> LoadedModel:
    """The model of a checkpoint of any layout.

    Args:
        source: The files of the checkpoint, or their folder.

    Raises:
        CheckpointError: If the layout is unknown or any part does not fit.
    """
    files = as_files(source)
    with open_tensors(files) as stored:
        layout = identify(set(stored.shapes), files.folder)
        plan = layout.plan(files, stored.shapes)
        model = fit_model(plan, stored, layout.name)
    return LoadedModel(model, layout.name, plan.notes, place_names(plan, stored.shapes))


def identify(keys: Set[str], folder: Path) -> Layout:
    """The layout whose tensors have these names.

    Raises:
        CheckpointError: If there is none; the message names the nearest.
    """
    for layout in LAYOUTS:
        if layout.matches(keys):
            return layout
    near = max(LAYOUTS, key=lambda layout: len(set(layout.signature) & keys))
    lacking = sorted(set(near.signature) - keys)
    if len(lacking) == len(near.signature):
        reason = f" ({', '.join(layout.name for layout in LAYOUTS)})"
    else:
        reason = f"; the nearest is {near.name!r}, which also needs {', '.join(lacking)}"
    starts = sorted({key.split(".")[0] for key in keys})
    raise CheckpointError(
        f"{folder} has no classification head of a layout that emoser reads{reason}; its tensors "
        f"begin with {shorten(starts, 8)}"
    )
