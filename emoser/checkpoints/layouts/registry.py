"""The layouts that emoser reads, and loading a checkpoint of any of them.

A layout is recognised by the names of its tensors, never by the name that `config.json` gives
itself. A checkpoint that fits none is refused, with the nearest layout named. To add a layout,
write a module like the others in this package and add its name to `MODULES`.
"""

from collections.abc import Mapping, Set
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

from emoser.checkpoints.boundary import reading
from emoser.checkpoints.files import CheckpointFiles, as_files
from emoser.checkpoints.strict import Plan, fit_model, place_names
from emoser.checkpoints.tensors import Shapes, open_tensors
from emoser.checkpoints.trained_on import read_stages
from emoser.errors import CheckpointError
from emoser.models.model import EmotionModel
from emoser.text import shorten

MODULES = (
    "emoser",
    "transformers",
    "soxan",
    "ehcalabres",
    "speechbrain",
    "odyssey",
    "vox_profile",
    "funasr",
    "ctc",
)
"""The modules of this package that are layouts, in the order in which they are tried."""


PEFT = ".lora_A."  # in the names of tensors of adapters that are not merged


class Layout(Protocol):
    """A module that reads one layout of checkpoints.

    Attributes:
        NAME: The value of `ModelInfo.layout`.
        SIGNATURE: Tensors, or prefixes of their names, that no other layout has together.
    """

    NAME: str
    SIGNATURE: tuple[str, ...]

    def plan(self, files: CheckpointFiles, shapes: Shapes) -> Plan:
        """How files with tensors of these shapes become a model."""
        ...


LAYOUTS = tuple(cast(Layout, import_module(f"{__package__}.{name}")) for name in MODULES)


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

    Raises:
        CheckpointError: If the layout is unknown or any part does not fit.
    """
    files = as_files(source)
    with reading(files.folder), open_tensors(files) as stored:
        layout = identify(set(stored.shapes), files.folder)
        plan = layout.plan(files, stored.shapes)
        model = fit_model(plan, stored, layout.NAME)
        model.trained_on = read_stages(files)
    return LoadedModel(model, layout.NAME, plan.notes, place_names(plan, stored.shapes))


def identify(keys: Set[str], folder: Path) -> Layout:
    """The layout whose tensors have these names.

    Raises:
        CheckpointError: If there is none; the message names the nearest.
    """
    if any(PEFT in name for name in keys):
        raise CheckpointError(
            f"{folder} holds adapters of PEFT beside the weights that they change; merge them "
            "with peft's merge_and_unload() and save the model again"
        )
    lacks = [
        [part for part in layout.SIGNATURE if not any(name.startswith(part) for name in keys)]
        for layout in LAYOUTS
    ]
    if [] in lacks:
        return LAYOUTS[lacks.index([])]
    near, lacking = max(
        zip(LAYOUTS, lacks, strict=True), key=lambda pair: len(pair[0].SIGNATURE) - len(pair[1])
    )
    if len(lacking) == len(near.SIGNATURE):
        reason = f" ({', '.join(layout.NAME for layout in LAYOUTS)})"
    else:
        reason = f"; the nearest is {near.NAME!r}, which also needs {', '.join(sorted(lacking))}"
    starts = sorted({key.split(".")[0] for key in keys})
    raise CheckpointError(
        f"{folder} has no classification head of a layout that emoser reads{reason}; its tensors "
        f"begin with {shorten(starts)}"
    )
