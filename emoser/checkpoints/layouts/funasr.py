"""emotion2vec and emotion2vec+ as FunASR publishes them: `model.pt` and `tokens.txt`.

The samples of a recording pass one layer norm, the ten extra tokens are dropped, the frames are
averaged and classified. Tokens are bilingual ("生气/angry"); those that begin with "unuse" are not
labels: their rows of the head are left out, which equals a logit of minus infinity.
"""

from collections.abc import Mapping
from pathlib import Path

from emoser.checkpoints.backbones import count_layers
from emoser.checkpoints.configs import check_labels
from emoser.checkpoints.files import CheckpointFiles
from emoser.checkpoints.preprocessing import SAMPLING_RATE, read_sampling_rate
from emoser.checkpoints.strict import Plan, Tensors
from emoser.checkpoints.tensors import Shapes
from emoser.errors import CheckpointError
from emoser.labels import canonical_labels
from emoser.models.config import ModelConfig
from emoser.models.emotion2vec import Emotion2VecConfig

NAME = "emotion2vec"
AUDIO = "modality_encoders.AUDIO."
SIGNATURE = (f"{AUDIO}extra_tokens", "blocks.0.attn.qkv.weight", "proj.weight", "proj.bias")
PLACES: Mapping[str, str | None] = {
    **dict.fromkeys((f"{AUDIO}decoder.", "_ema.", "recon_proj.")),  # of pretraining
    "modality_encoders.": "encoder.backbone.modality_encoders.",
    "blocks.": "encoder.backbone.blocks.",
    "proj.": "head.classifier.",
}
TOKENS = "tokens.txt"
UNUSED = "unuse"
MAX_TOKENS = 1_000


def plan(files: CheckpointFiles, shapes: Shapes) -> Plan:
    """How the files of a checkpoint of this layout become a model."""
    folder = files.folder
    tokens = _read_tokens(files)
    num_rows = shapes["proj.weight"][0]
    if num_rows != len(tokens):
        raise CheckpointError(
            f"{folder}: proj has {num_rows} rows and {TOKENS} {len(tokens)} lines; "
            "take both from one repository (ModelScope and Hugging Face differ)"
        )
    used = [index for index, token in enumerate(tokens) if not token.startswith(UNUSED)]
    raw = check_labels({place: tokens[index] for place, index in enumerate(used)}, folder / TOKENS)
    encoder = _infer_config(shapes, folder)
    config = ModelConfig(
        labels=canonical_labels(raw),
        raw_labels=raw,
        encoder=encoder.model_type,
        normalization="layer",
        sampling_rate=read_sampling_rate(files) or SAMPLING_RATE,
    )

    def drop_unused(tensors: Tensors) -> Tensors:
        heads = ("head.classifier.weight", "head.classifier.bias")
        return {**tensors, **{name: tensors[name][used] for name in heads if name in tensors}}

    return Plan(config, encoder.to_dict(), PLACES, drop_unused)


def _infer_config(shapes: Shapes, folder: Path) -> Emotion2VecConfig:
    """The configuration of the encoder from its tensors; strides are as published."""
    try:
        hidden_size, width, kernel = shapes[f"{AUDIO}relative_positional_encoder.1.0.weight"]
        return Emotion2VecConfig(
            hidden_size=hidden_size,
            num_heads=shapes[f"{AUDIO}alibi_scale"][-3],
            prenet_depth=count_layers(shapes, f"{AUDIO}context_encoder.blocks."),
            depth=count_layers(shapes, "blocks."),
            mlp_size=shapes["blocks.0.mlp.fc1.weight"][0],
            num_extra_tokens=shapes[f"{AUDIO}extra_tokens"][1],
            conv_dim=shapes[f"{AUDIO}local_encoder.conv_layers.0.0.weight"][0],
            position_layers=count_layers(shapes, f"{AUDIO}relative_positional_encoder.") - 1,
            position_kernel=kernel,
            position_groups=hidden_size // width,
        )
    except (KeyError, IndexError, ValueError, ZeroDivisionError) as error:
        raise CheckpointError(f"{folder} does not hold an emotion2vec encoder: {error}") from error


def _read_tokens(files: CheckpointFiles) -> list[str]:
    file = files.folder / TOKENS
    lines = [line.strip() for line in files.read_text(TOKENS).splitlines()]
    tokens = [line.split()[0] if line else "" for line in lines]
    while tokens and not tokens[-1]:
        tokens.pop()
    if not tokens or len(tokens) > MAX_TOKENS:
        raise CheckpointError(f"{file} names {len(tokens)} labels; 1 to {MAX_TOKENS:,} are allowed")
    return tokens
