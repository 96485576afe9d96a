"""Convert a checkpoint of any layout to one that `save_model` writes, with equal numbers.

The written folder is loaded again and compared with the source on known clips before it
appears; the logits that were compared are stored in `golden.json`.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from emoser.checkpoints.atomic import new_folder, scratch_folder
from emoser.checkpoints.card import CardFacts, build_card, check_card, read_max_difference
from emoser.checkpoints.files import CARD, GOLDEN, CheckpointFiles, as_files
from emoser.checkpoints.hub import address_of, check_name, push_folder
from emoser.checkpoints.inspection import answer_alone, golden_record
from emoser.checkpoints.layouts.registry import LoadedModel, load_checkpoint
from emoser.checkpoints.save import (
    adapt_biases,
    describe_model,
    name_labels,
    save_model,
    write_json,
)
from emoser.errors import CheckpointError
from emoser.models.adaptation import Adaptation
from emoser.models.config import ACTIVATIONS, ModelInfo
from emoser.models.heads import ACTIVATIONS as MODULES
from emoser.models.heads import DenseHead
from emoser.models.model import EmotionModel

TOLERANCE = 1e-5  # of the largest logit


@dataclass(frozen=True)
class Conversion:
    """Result of a conversion.

    Attributes:
        folder: The folder that was written.
        source_layout: Layout of the source.
        layout: Layout of the new folder.
        max_difference: Largest difference of a logit to the source.
    """

    folder: Path
    source_layout: str
    layout: str
    max_difference: float


def convert_checkpoint(
    checkpoint: CheckpointFiles,
    folder: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    activation: str | None = None,
    name: str = "",
    labels: Sequence[str] = (),
    adaptation: Adaptation | None = None,
) -> Conversion:
    """Convert a checkpoint of any layout to a folder of safetensors.

    Args:
        checkpoint: The source.
        folder: The folder to write; appears complete or not at all.
        overwrite: Replace a folder that is not empty.
        activation: "none", "tanh" or "relu", for layouts that do not state the activation
            inside the head (ehcalabres).
        name: Name of the model in the card; the name of the folder if empty.
        labels: Names for the labels of a checkpoint that names none.
        adaptation: To a speaker, made part of the biases.

    Raises:
        CheckpointError: If the source does not load, or its numbers change.
        FileExistsError: If the folder is not empty and `overwrite` is off.
        ValueError: If `activation` is unknown, or the layout states it.
    """
    loaded = load_checkpoint(checkpoint)
    model = loaded.model if activation is None else _activate(loaded, activation)
    name_labels(model, labels)
    adapt_biases(model, adaptation)
    model.config = replace(model.config, training=_provenance(checkpoint, loaded))
    expected = answer_alone(model)
    name = name or Path(folder).absolute().name
    with new_folder(Path(folder), overwrite=overwrite) as target:
        inner = save_model(model, target / "model")
        written = load_checkpoint(inner)
        difference = float((answer_alone(written.model) - expected).abs().max())
        if not difference <= TOLERANCE * max(float(expected.abs().max()), 1.0):
            raise CheckpointError(
                f"the logits of {checkpoint.name} change by {difference:.1e} in the conversion"
            )
        for file in inner.iterdir():
            file.rename(target / file.name)
        inner.rmdir()
        write_json(target / GOLDEN, golden_record(expected, checkpoint.name, difference))
        facts = describe_model(model, name, card=checkpoint.card)
        card = build_card(replace(facts, max_difference=difference))
        (target / CARD).write_text(str(card), encoding="utf-8")
    return Conversion(Path(folder), loaded.layout, written.layout, difference)


def describe_checkpoint(checkpoint: CheckpointFiles) -> CardFacts:
    """The facts for the card of a checkpoint of any layout."""
    loaded = load_checkpoint(checkpoint)
    facts = describe_model(loaded.model, checkpoint.name, card=checkpoint.card)
    return replace(facts, layout=loaded.layout, max_difference=read_max_difference(checkpoint))


def publish(
    info: ModelInfo,
    repo_id: str,
    *,
    private: bool = False,
    dry_run: bool = False,
    token: str | bool | None = None,
    labels: Sequence[str] = (),
    adaptation: Adaptation | None = None,
) -> str:
    """Convert a loaded checkpoint, write its card, and upload both; the URL of the commit.

    A `dry_run` does everything but upload, and gives the URL of the repository. `labels` and
    `adaptation` are as for `convert_checkpoint`.

    Raises:
        CheckpointError: If the card has a fault; see `check_card`.
        HubError: If the id is malformed, or the Hub refuses or cannot be reached.
    """
    check_name(repo_id)
    source = CheckpointFiles(info.name, Path(info.path), info.revision)
    with scratch_folder() as place:
        folder = place / "model"
        convert_checkpoint(source, folder, name=repo_id, labels=labels, adaptation=adaptation)
        faults = check_card(as_files(folder).card)
        if faults:
            raise CheckpointError(f"the card of {info.name} cannot be published: {faults[0]}")
        if dry_run:
            return address_of(repo_id)
        return push_folder(folder, repo_id, private=private, token=token)


def _provenance(checkpoint: CheckpointFiles, loaded: LoadedModel) -> dict[str, object]:
    """The training as the source states it, and the source itself."""
    source = {
        "name": checkpoint.name,
        "revision": checkpoint.revision,
        "layout": loaded.layout,
        "notes": list(loaded.notes),
    }
    return {**loaded.model.config.training, "converted_from": source}


def _activate(loaded: LoadedModel, activation: str) -> EmotionModel:
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation is {activation!r}; use one of {', '.join(ACTIVATIONS)}")
    head = loaded.model.head
    if loaded.layout != "ehcalabres" or not isinstance(head, DenseHead):
        raise ValueError(
            f"the layout {loaded.layout!r} states its activation; leave out --activation"
        )
    head.activation = MODULES[activation]()
    loaded.model.config = replace(loaded.model.config, activation=activation)
    return loaded.model
