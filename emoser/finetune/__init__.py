"""Fine-tune and evaluate models on labelled recordings.

Each public name is imported when it is first used, so that importing the package is fast.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from emoser.finetune.config import FinetuneConfig
    from emoser.finetune.corpora import read_corpus
    from emoser.finetune.data.utterance import Utterance
    from emoser.finetune.experiments.cross_validation import cross_validate
    from emoser.finetune.experiments.finetuning import finetune
    from emoser.finetune.recipes import RECIPES
    from emoser.finetune.scoring.evaluation import evaluate
    from emoser.finetune.training.run import train

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
    "Utterance": "emoser.finetune.data.utterance",
    "cross_validate": "emoser.finetune.experiments.cross_validation",
    "evaluate": "emoser.finetune.scoring.evaluation",
    "read_corpus": "emoser.finetune.corpora",
    "finetune": "emoser.finetune.experiments.finetuning",
    "train": "emoser.finetune.training.run",
}


if not TYPE_CHECKING:  # for a type checker, a name that is not imported above is an error

    def __getattr__(name: str) -> object:
        """Load a public name from the module that owns it."""
        if name not in _HOMES:
            raise AttributeError(f"module 'emoser.finetune' has no attribute {name!r}")
        return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
