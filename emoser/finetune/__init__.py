"""Fine-tune and score models on one's own recordings.

Importing it costs nothing: each public name is loaded when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from emoser.finetune.config import FinetuneConfig
    from emoser.finetune.corpora import read_corpus
    from emoser.finetune.evaluation import evaluate
    from emoser.finetune.experiment import cross_validate
    from emoser.finetune.recipes import RECIPES
    from emoser.finetune.training import train
    from emoser.finetune.tuning import finetune
    from emoser.finetune.utterance import Utterance

__all__ = [
    "RECIPES",
    "FinetuneConfig",
    "Utterance",
    "cross_validate",
    "evaluate",
    "finetune",
    "read_corpus",
    "train",
]

_HOMES = {
    "RECIPES": "emoser.finetune.recipes",
    "FinetuneConfig": "emoser.finetune.config",
    "Utterance": "emoser.finetune.utterance",
    "cross_validate": "emoser.finetune.experiment",
    "evaluate": "emoser.finetune.evaluation",
    "read_corpus": "emoser.finetune.corpora",
    "finetune": "emoser.finetune.tuning",
    "train": "emoser.finetune.training",
}


def __getattr__(name: str) -> Any:
    """Load a public name from the module that owns it."""
    if name not in _HOMES:
        raise AttributeError(f"module 'emoser.finetune' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
