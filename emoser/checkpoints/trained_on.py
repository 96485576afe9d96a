"""`trained_on.json`: what a checkpoint, its bases and its teachers were trained on."""

from collections.abc import Sequence
from pathlib import Path

from emoser.checkpoints.boundary import reading
from emoser.checkpoints.files import TRAINED_ON, CheckpointFiles
from emoser.errors import CheckpointError
from emoser.json_text import format_json
from emoser.models.training_stage import TrainingStage

SCHEMA = 1


def read_stages(files: CheckpointFiles) -> tuple[TrainingStage, ...]:
    """The trainings of a checkpoint, the last one first; empty if it does not state them.

    Raises:
        CheckpointError: If the file is damaged, or written by a newer emoser.
    """
    if TRAINED_ON not in files.stamps:
        return ()
    file = files.folder / TRAINED_ON
    with reading(file):
        values = files.read_json(TRAINED_ON)
        if values["schema"] != SCHEMA:
            raise CheckpointError(
                f"{file}: its schema is {values['schema']!r} and this version of emoser reads "
                f"{SCHEMA}; upgrade emoser"
            )
        return tuple(map(TrainingStage.from_dict, values["stages"]))


def write_stages(stages: Sequence[TrainingStage], folder: Path) -> None:
    """Write `trained_on.json`; nothing if there are no stages."""
    if stages:
        values = {"schema": SCHEMA, "stages": [stage.to_dict() for stage in stages]}
        (folder / TRAINED_ON).write_text(format_json(values, indent=2) + "\n", encoding="utf-8")
