"""`RECIPES`: the experiments of arXiv 2111.02735 by the names that the paper gives them.

EF trains everything, PF all but the convolutions, Frozen the head alone; w2v is wav2vec 2.0, hbt
HuBERT, and 960h an encoder that had been fine-tuned to transcribe. Beside each stands what the
paper reports, where a public source states it.
"""

from collections.abc import Mapping
from dataclasses import replace
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
"""Accuracy in per cent on IEMOCAP by recipe and setting, and who states it."""

PAPER = FinetuneConfig(
    head_bias=False,
    output_norm=True,
    masking=False,
    epochs=30,
    batch_size=4,
    encoder_learning_rate=1e-5,
    head_learning_rate=1e-4,
    optimizer="adam",
    betas=(0.9, 0.999),
    schedule="newbob",
    warmup=0.0,
    max_grad_norm=5.0,
    selection="accuracy",
    crop_seconds=None,
    augmentation=Augmentation.off(),
    seed=1993,
)
"""The authors' settings; each recipe adds an encoder and what of it learns."""

SUPERB = FinetuneConfig(
    head="projector",
    layer_mix=True,
    masking=False,
    epochs=217,  # 30,000 steps of 32 clips on four sessions
    batch_size=32,
    head_learning_rate=1e-4,
    optimizer="adam",
    betas=(0.9, 0.999),
    schedule="constant",
    warmup=0.0,
    max_grad_norm=1.0,
    mode="frozen",
    selection="accuracy",
    crop_seconds=None,
    augmentation=Augmentation.off(),
)
"""The frozen protocol of the SUPERB benchmark, from which the paper's frozen rows come."""


def _build_recipes() -> dict[str, FinetuneConfig]:
    recipes = {}
    for name, base in RECIPE_ENCODERS.items():
        recipes[f"EF-{name}"] = replace(PAPER, base=base, mode="entire")
        recipes[f"PF-{name}"] = replace(PAPER, base=base, mode="partial")
        recipes[f"Frozen-{name}"] = replace(SUPERB, base=base)
    return recipes


RECIPES: Mapping[str, FinetuneConfig] = MappingProxyType(_build_recipes())
"""Settings by the names of the paper: `RECIPES["PF-hbt-large"].base` is the Hub id of its encoder.

Example:
    >>> RECIPES["PF-hbt-large"].mode, len(RECIPES)
    ('partial', 21)
"""
