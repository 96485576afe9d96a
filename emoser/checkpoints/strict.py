"""Load tensors into a model strictly: every tensor is assigned, or the checkpoint is refused.

A layout describes a checkpoint by a `Plan`: the model, and the name in it of every tensor. Sizes
are checked on the meta device before memory is allocated, no weight is initialised at random,
and one message lists all faults.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from emoser.checkpoints.backbones import build_encoder
from emoser.checkpoints.files import CONFIG
from emoser.checkpoints.tensors import Shapes, StoredTensors, rename_weight_norm
from emoser.errors import CheckpointError
from emoser.models.config import ModelConfig
from emoser.models.model import EmotionModel
from emoser.text import shorten

OPTIONAL_TENSORS = ("masked_spec_embed",)  # used in training only
MAX_PARAMETERS = 4_000_000_000

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Plan:
    """How the tensors of one checkpoint become an `EmotionModel`.

    Attributes:
        config: The configuration around the encoder.
        encoder: The configuration of the encoder.
        places: As in `place_name`; weight-norm pairs are in torch's current spelling.
        complete: Changes the renamed tensors where renaming is not enough: a bias that the
            layout does not have becomes zeros, adapters are merged.
        notes: Choices of the layout where the files leave one open, for `emoser doctor`.
    """

    config: ModelConfig
    encoder: Mapping[str, Any]
    places: Mapping[str, str | None]
    complete: Callable[[Tensors], Tensors] = dict
    notes: tuple[str, ...] = ()


def fit_model(plan: Plan, stored: StoredTensors, layout: str) -> EmotionModel:
    """The model of stored tensors, in float32 on the CPU, ready to predict.

    Raises:
        CheckpointError: If the description does not make a model; or with all missing,
            unexpected and misshapen tensors, sorted.
    """
    with torch.device("meta"):
        encoder = build_encoder(plan.encoder, plan.config, stored.folder / CONFIG)
        model = EmotionModel(plan.config, encoder)
    size = sum(parameter.numel() for parameter in model.parameters())
    if size > MAX_PARAMETERS:
        raise CheckpointError(
            f"{stored.folder} describes a model of {size:,} weights; emoser loads up to "
            f"{MAX_PARAMETERS:,}"
        )
    tensors = stored.read()
    placed: Tensors = {}
    for name, place in place_names(plan, tensors).items():
        if place is not None:
            tensor = tensors[name]
            placed[place] = tensor.float() if tensor.is_floating_point() else tensor
    subject = f"the weights of {stored.folder} ({layout})"
    assign_tensors(model, plan.complete(placed), subject)
    _fill_buffers(model)
    return model.eval()


def place_names(plan: Plan, names: Shapes | Tensors) -> dict[str, str | None]:
    """The name in the model of every tensor in the files; None for those that are not used."""
    return {name: place_name(rename_weight_norm(name, names), plan.places) for name in names}


def place_name(name: str, places: Mapping[str, str | None]) -> str | None:
    """The name in the model of a tensor of a file.

    Args:
        name: The name in the file.
        places: Prefixes in the file and in the model; None for tensors that are known and not
            used. The first that fits is replaced, and other names are unchanged.

    Example:
        >>> place_name("hubert.encoder.layer_norm.bias", {"hubert.": "encoder.backbone."})
        'encoder.backbone.encoder.layer_norm.bias'
    """
    for theirs, ours in places.items():
        if name.startswith(theirs):
            return None if ours is None else ours + name.removeprefix(theirs)
    return name


def assign_tensors(module: nn.Module, tensors: Mapping[str, Tensor], subject: str) -> None:
    """Make tensors the parameters and buffers of a module: all of them, and no others.

    Only tensors that serve training alone (`OPTIONAL_TENSORS`) may be absent; they become zeros.
    Error messages begin with `subject`.

    Raises:
        CheckpointError: With all missing, unexpected and misshapen tensors, sorted.
    """
    expected = module.state_dict()
    optional = {name for name in expected if name.endswith(OPTIONAL_TENSORS)}
    unused = {name for name in tensors if name.endswith(OPTIONAL_TENSORS)} - set(expected)
    missing = sorted(set(expected) - set(tensors) - optional)
    unexpected = sorted(set(tensors) - set(expected) - unused)
    shapes = [
        f"{name} is {tuple(tensors[name].shape)} and should be {tuple(expected[name].shape)}"
        for name in sorted(set(expected) & set(tensors))
        if tensors[name].shape != expected[name].shape
    ]
    kinds = {"missing": missing, "unexpected": unexpected, "wrong shape": shapes}
    faults = [f"{kind}: {shorten(names)}" for kind, names in kinds.items() if names]
    if faults:
        raise CheckpointError(f"{subject} do not fit its description; {'; '.join(faults)}")
    filled = {name: tensor for name, tensor in tensors.items() if name not in unused}
    for name in optional - set(tensors):
        filled[name] = torch.zeros(expected[name].shape)
    module.load_state_dict(filled, strict=True, assign=True)


def _fill_buffers(model: EmotionModel) -> None:
    """Compute the buffers that are not stored in files, such as position tables."""
    for module in model.modules():
        hollow = [name for name, buffer in module.named_buffers(recurse=False) if buffer.is_meta]
        for name in hollow:
            setattr(module, name, torch.empty_like(getattr(module, name), device="cpu"))
        if hollow:
            model.encoder.backbone._init_weights(module)  # type: ignore[operator]
