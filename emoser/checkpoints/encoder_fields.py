"""Which settings of an encoder a checkpoint may state, and the range of each.

A configuration reaches transformers with these settings alone. Others name code, kernels,
quantisers or other places that transformers would look at, or do not change the numbers of an
encoder. Every number is checked before memory is taken for it.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from emoser.errors import CheckpointError
from emoser.models.fields import Field, Flag, Numbers, Words, find_faults

MAX_FIELD_SAMPLES = 480_000  # receptive field of the convolutions: 30 s at 16 kHz

WIDTH = Numbers(1, 65_536)
DEPTH = Numbers(1, 256)
HEADS = Numbers(1, 1_024)
KERNEL = Numbers(1, 4_096)
KERNELS = Numbers(1, 4_096, listed=True)
POSITIONS = Numbers(0, 20_000)
SHARE = Numbers(0, 1, whole=False)
SPAN = Numbers(0, 10_000)
DEVIATION = Numbers(0, 10, whole=False)
ACTIVATION = Words()
FLAG = Flag()

TRANSFORMERS: Mapping[str, Field] = {
    # the shape
    "hidden_size": WIDTH,
    "intermediate_size": WIDTH,
    "d_model": WIDTH,
    "encoder_ffn_dim": WIDTH,
    "feature_projection_input_dim": KERNEL,
    "num_mel_bins": Numbers(1, 1_024),
    "num_hidden_layers": DEPTH,
    "encoder_layers": DEPTH,
    "num_attention_heads": HEADS,
    "encoder_attention_heads": HEADS,
    "conv_dim": Numbers(1, 65_536, listed=True),
    "conv_kernel": KERNELS,
    "conv_stride": KERNELS,
    "conv_bias": FLAG,
    "conv_depthwise_kernel_size": KERNEL,
    "conv_pos_kernel_size": KERNEL,
    "conv_pos_batch_norm": FLAG,
    "num_conv_pos_embeddings": KERNEL,
    "num_conv_pos_embedding_groups": KERNEL,
    "max_source_positions": Numbers(1, 20_000),
    "left_max_position_embeddings": POSITIONS,
    "right_max_position_embeddings": POSITIONS,
    "num_buckets": KERNEL,
    # the computation
    "hidden_act": ACTIVATION,
    "activation_function": ACTIVATION,
    "feat_extract_activation": ACTIVATION,
    "feat_extract_norm": Words(("group", "layer")),
    "feat_proj_layer_norm": FLAG,
    "do_stable_layer_norm": FLAG,
    "layer_norm_eps": Numbers(1e-12, 0.1, whole=False),
    "position_embeddings_type": Words(("relative", "rotary", "relative_key", None)),
    "rotary_embedding_base": Numbers(1, 10**9),
    "max_bucket_distance": Numbers(1, 1_000_000),
    "scale_embedding": FLAG,
    # fine-tuning
    "activation_dropout": SHARE,
    "attention_dropout": SHARE,
    "conformer_conv_dropout": SHARE,
    "dropout": SHARE,
    "encoder_layerdrop": SHARE,
    "feat_proj_dropout": SHARE,
    "final_dropout": SHARE,
    "hidden_dropout": SHARE,
    "layerdrop": SHARE,
    "apply_spec_augment": FLAG,
    "mask_time_prob": SHARE,
    "mask_time_length": SPAN,
    "mask_time_min_masks": SPAN,
    "mask_feature_prob": SHARE,
    "mask_feature_length": SPAN,
    "mask_feature_min_masks": SPAN,
    "initializer_range": DEVIATION,
    "init_std": DEVIATION,
}
"""The settings of the encoders in transformers that emoser runs."""

EMOTION2VEC: Mapping[str, Field] = {
    "hidden_size": WIDTH,
    "num_heads": HEADS,
    "prenet_depth": Numbers(0, 256),
    "depth": DEPTH,
    "mlp_size": WIDTH,
    "num_extra_tokens": POSITIONS,
    "conv_dim": WIDTH,
    "conv_kernel": KERNELS,
    "conv_stride": KERNELS,
    "position_layers": Numbers(0, 256),
    "position_kernel": KERNEL,
    "position_groups": KERNEL,
}
"""Those of `Emotion2VecConfig`."""


AROUND = (
    "architectures",
    "backbone_config",
    "classifier_proj_size",
    "emoser",
    "id2label",
    "label2id",
    "model_type",
    "problem_type",
    "use_weighted_layer_sum",
)
"""What else transformers' own classes need of a `config.json` to classify."""


def plain_config(config: Mapping[str, Any], file: Path) -> dict[str, Any]:
    """What transformers may be given of a `config.json`, for its own classes."""
    around = {name: config[name] for name in AROUND if name in config}
    return {**select_fields(config, TRANSFORMERS, file), **around}


def select_fields(
    stated: Mapping[str, Any], fields: Mapping[str, Field], file: Path
) -> dict[str, Any]:
    """The settings of `stated` that are in `fields`; null stands for the default.

    Raises:
        CheckpointError: Naming every setting that is out of its range.
    """
    found = {
        name: stated[name]
        for name, field in fields.items()
        if name in stated and (stated[name] is not None or field.allows(None))
    }
    faults = find_faults(found, fields)
    if faults:
        raise CheckpointError(f"{file}: {'; '.join(faults)}")
    _check_receptive_field(found, file)
    return found


def _check_receptive_field(found: Mapping[str, Any], file: Path) -> None:
    """Refuse convolutions for which every recording would be padded to minutes."""
    kernels, strides = found.get("conv_kernel", ()), found.get("conv_stride", ())
    samples = 1
    for kernel, stride in zip(reversed(kernels), reversed(strides), strict=False):
        samples = (samples - 1) * stride + kernel
    if samples > MAX_FIELD_SAMPLES or math.prod(strides) > MAX_FIELD_SAMPLES:
        raise CheckpointError(
            f"{file}: conv_kernel and conv_stride make one frame of {samples:,} samples; emoser "
            f"loads up to {MAX_FIELD_SAMPLES:,}"
        )
