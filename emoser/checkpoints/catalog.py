"""Short names of published checkpoints, and facts about them, from `catalog.json`.

Compiled from the cards, configurations and discussions of the checkpoints. No entry was compared
with the live Hub (see `checked`); what a checkpoint holds is read from its files when it is
loaded. A figure is a claim of its authors and comes with their protocol, which is often not
speaker-independent.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

RECIPE_ENCODERS: Mapping[str, str] = {
    "w2v-base": "facebook/wav2vec2-base",
    "w2v-base-960h": "facebook/wav2vec2-base-960h",
    "w2v-large": "facebook/wav2vec2-large",
    "w2v-large-960h": "facebook/wav2vec2-large-960h",
    "hbt-base": "facebook/hubert-base-ls960",
    "hbt-large": "facebook/hubert-large-ll60k",
    "hbt-large-960h": "facebook/hubert-large-ls960-ft",
}
"""Encoders of the recipes of arXiv 2111.02735, by the recipe's name without its prefix."""
RECIPE_PREFIXES = ("EF-", "PF-", "Frozen-")
FILE = Path(__file__).with_name("catalog.json")


@dataclass(frozen=True)
class Entry:
    """A published checkpoint.

    Attributes:
        name: Short name, accepted instead of the id.
        id: Owner and name on the Hub.
        layout: Layout of the files, as in `ModelInfo.layout`.
        encoder: Architecture of the encoder.
        labels: Canonical names in the order of the logits.
        licence: Licence of the weights.
        megabytes: Approximate size of the weights; None if not known.
        trained_on: Training corpora.
        claim: Figure that the authors state; "" if they state none.
        protocol: Protocol of that figure.
        caution: What to know before using the checkpoint.
        checked: Whether the entry was compared with the live Hub.
    """

    name: str
    id: str
    layout: str
    encoder: str
    labels: tuple[str, ...]
    licence: str
    megabytes: int | None = None
    trained_on: str = ""
    claim: str = ""
    protocol: str = ""
    caution: str = ""
    checked: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)


CATALOG = tuple(
    Entry(**{**stated, "labels": tuple(stated["labels"])})
    for stated in json.loads(FILE.read_text(encoding="utf-8"))
)
"""Widely used checkpoints, in no particular order."""


def find_entry(name: str) -> Entry | None:
    """The entry with a short name, or None.

    Example:
        >>> find_entry("superb-hubert-large").id
        'superb/hubert-large-superb-er'
    """
    return next((entry for entry in CATALOG if entry.name == name), None)


def find_recipe(name: str) -> str | None:
    """The encoder that a recipe of the paper starts from, or None.

    Example:
        >>> find_recipe("PF-hbt-large")
        'facebook/hubert-large-ll60k'
    """
    for prefix in RECIPE_PREFIXES:
        if name.startswith(prefix):
            return RECIPE_ENCODERS.get(name.removeprefix(prefix))
    return None
