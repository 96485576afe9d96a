"""`RECIPES`: the experiments of arXiv 2111.02735 by the names of the paper.

EF trains everything, PF all but the convolutions, Frozen only the head; w2v is wav2vec 2.0, hbt
HuBERT, and 960h an encoder that was first fine-tuned for transcription. `PAPER_RESULTS` holds the
results of the paper that a public source states.
"""

from collections.abc import Mapping
from types import MappingProxyType

from emoser.checkpoints.catalog import RECIPE_ENCODERS
from emoser.finetune.config import Augmentation, FinetuneConfig

PAPER_RESULTS: Mapping[tuple[str, str], tuple[float, str]] = {
    ("PF-hbt-large", "sd"): (79.58, "the paper's abstract"),
    ("PF-hbt-large", "si"): (73.01, "the paper's abstract, version 3"),
    ("PF-w2v-base", "sd"): (77.02, "the authors' recipe, average"),
    ("PF-hbt-base", "sd"): (76.6, "the authors' recipe, average"),
    ("Frozen-w2v-base", "superb"): (63.43, "SUPERB, as quoted by the paper"),
    ("Frozen-w2v-large", "superb"): (65.64, "SUPERB, as quoted by the paper"),
    ("Frozen-hbt-base", "superb"): (64.92, "SUPERB, as quoted by the paper"),
    ("Frozen-hbt-large", "superb"): (67.62, "SUPERB, as quoted by the paper"),
}
"""Accuracy in per cent on IEMOCAP by recipe and setting, and its source."""

_COMMON = FinetuneConfig(
    masking=False,
    keep_head=False,
    encoder_learning_rate=1e-5,
    head_learning_rate=1e-4,
    optimizer="adam",
    betas=(0.9, 0.999),
    warmup=0.0,
    selection="accuracy",
    crop_seconds=None,
    augmentation=Augmentation.off(),
)

PAPER = _COMMON.replace(
    head_bias=False,
    output_norm=True,
    epochs=30,
    batch_size=4,
    schedule="newbob",
    max_grad_norm=5.0,
    seed=1993,
)
"""The authors' settings; each recipe adds an encoder and a mode."""

SUPERB = _COMMON.replace(
    head="projector",
    layer_mix=True,
    epochs=217,  # 30,000 steps of 32 clips on four sessions
    batch_size=32,
    schedule="constant",
    max_grad_norm=1.0,
    mode="frozen",
)
"""The frozen protocol of the SUPERB benchmark, the source of the paper's frozen results."""


_KINDS = {
    "EF": PAPER.replace(mode="entire"),
    "PF": PAPER.replace(mode="partial"),
    "Frozen": SUPERB,
}

RECIPES: Mapping[str, FinetuneConfig] = MappingProxyType(
    {
        f"{kind}-{name}": settings.replace(base=base)
        for name, base in RECIPE_ENCODERS.items()
        for kind, settings in _KINDS.items()
    }
)
"""Settings by the names of the paper: `RECIPES["PF-hbt-large"].base` is the Hub id of its encoder.

Example:
    >>> RECIPES["PF-hbt-large"].model.mode, len(RECIPES)
    ('partial', 21)
"""
