"""emotion2vec and emotion2vec+ as FunASR publishes them: `model.pt` and `tokens.txt`.

The samples of a recording pass one layer norm, the ten extra tokens are dropped, the frames are
averaged and classified. Tokens are bilingual ("生气/angry"); those that begin with "unuse" are not
labels: their rows of the head are left out, which equals a logit of minus infinity.
"""

import re
from collections.abc import Set
from pathlib import Path

from emoser.checkpoints.backbones import encoder_builder
from emoser.checkpoints.configs import check_labels
from emoser.checkpoints.files import CheckpointFiles
from emoser.checkpoints.strict import Plan, Tensors
from emoser.checkpoints.tensors import Shapes
from emoser.errors import CheckpointError
from emoser.labels import canonical_labels
from emoser.models.config import ModelConfig
from emoser.models.emotion2vec import Emotion2VecConfig

NAME = "emotion2vec"
AUDIO = "modality_encoders.AUDIO."
SIGNATURE = (f"{AUDIO}extra_tokens", "blocks.0.attn.qkv.weight", "proj.weight", "proj.bias")
WRAPPER = "d2v_model."  # precedes every name in files of the older code
PRETRAINING = (f"{AUDIO}decoder.", "_ema.", "recon_proj.")
TOKENS = "tokens.txt"
UNUSED = "unuse"
MAX_TOKENS = 1_000


def matches(keys: Set[str]) -> bool:
    """Whether tensors with these names are of this layout."""
    return set(SIGNATURE) <= {_unwrap(name) for name in keys}


def plan(files: CheckpointFiles, shapes: Shapes) -> Plan:
    """How the files of a checkpoint of this layout become a model."""
    folder = files.folder
    tokens = _read_tokens(files)
    own = {_unwrap(name): shape for name, shape in shapes.items()}
    if own["proj.weight"][0] != len(tokens):
        raise CheckpointError(
            f"{folder}: proj has {own['proj.weight'][0]} rows and {TOKENS} {len(tokens)} lines; "
            "take both from one repository (ModelScope and Hugging Face differ)"
        )
    used = [index for index, token in enumerate(tokens) if not token.startswith(UNUSED)]
    raw = check_labels({place: tokens[index] for place, index in enumerate(used)}, folder / TOKENS)
    encoder = _infer_config(own, folder)
    config = ModelConfig(
        labels=canonical_labels(raw),
        raw_labels=raw,
        encoder=encoder.model_type,
        normalization="layer",
    )

    def drop_unused(tensors: Tensors) -> Tensors:
        heads = ("head.classifier.weight", "head.classifier.bias")
        return {**tensors, **{name: tensors[name][used] for name in heads if name in tensors}}

    builder = encoder_builder(encoder.to_dict(), config, folder)
    return Plan(config, builder, _rename, drop_unused)


def _rename(name: str) -> str | None:
    name = _unwrap(name)
    if name.startswith(PRETRAINING):
        return None
    if name.startswith("proj."):
        return f"head.classifier.{name.removeprefix('proj.')}"
    if name.startswith(("modality_encoders.", "blocks.")):
        return f"encoder.backbone.{name}"
    return name


def _unwrap(name: str) -> str:
    return name.removeprefix(WRAPPER)


def _infer_config(own: Shapes, folder: Path) -> Emotion2VecConfig:
    """The configuration of the encoder from its tensors; strides are as published."""

    def count(pattern: str) -> int:
        found = [int(match.group(1)) for name in own if (match := re.match(pattern, name))]
        return max(found, default=-1) + 1

    try:
        hidden_size, _, kernel = own[f"{AUDIO}relative_positional_encoder.1.0.weight"]
        width = own[f"{AUDIO}relative_positional_encoder.1.0.weight"][1]
        return Emotion2VecConfig(
            hidden_size=hidden_size,
            num_heads=own[f"{AUDIO}alibi_scale"][-3],
            prenet_depth=count(re.escape(f"{AUDIO}context_encoder.blocks.") + r"(\d+)\."),
            depth=count(r"blocks\.(\d+)\."),
            mlp_size=own["blocks.0.mlp.fc1.weight"][0],
            num_extra_tokens=own[f"{AUDIO}extra_tokens"][1],
            conv_dim=own[f"{AUDIO}local_encoder.conv_layers.0.0.weight"][0],
            position_layers=count(re.escape(f"{AUDIO}relative_positional_encoder.") + r"(\d+)\.")
            - 1,
            position_kernel=kernel,
            position_groups=hidden_size // width,
        )
    except (KeyError, IndexError, ValueError, ZeroDivisionError) as error:
        raise CheckpointError(f"{folder} does not hold an emotion2vec encoder: {error}") from error


def _read_tokens(files: CheckpointFiles) -> list[str]:
    file = files.folder / TOKENS
    if TOKENS not in files.stamps:
        raise CheckpointError(f"{file} is missing; it names the labels, download it too")
    lines = [line.strip() for line in files.read_text(TOKENS).splitlines()]
    tokens = [line.split()[0] if line else "" for line in lines]
    while tokens and not tokens[-1]:
        tokens.pop()
    if not tokens or len(tokens) > MAX_TOKENS:
        raise CheckpointError(f"{file} names {len(tokens)} labels; 1 to {MAX_TOKENS:,} are allowed")
    return tokens
