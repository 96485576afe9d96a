"""What a report says about the training: base, settings, sides of the split, learning curve."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from emoser.finetune.config import FinetuneConfig
from emoser.finetune.data.utterance import Utterance
from emoser.finetune.protocols import Split
from emoser.text import counted, markdown_table, markdown_text, shorten

SHOWN_SPEAKERS = 60
SHOWN_SETTINGS = ("mode", "batch_size", "head_learning_rate", "seed")
CURVE = ("epoch", "loss", "training_accuracy", "uar", "accuracy", "ccc", "best")
SHOWN_CURVE = {
    "epoch": ("epoch", "{}"),
    "loss": ("loss", "{:.4f}"),
    "training_accuracy": ("training accuracy", "{:.1%}"),
    "uar": ("validation UAR", "{:.1%}"),
    "accuracy": ("validation accuracy", "{:.1%}"),
    "ccc": ("validation CCC", "{:.3f}"),
}
"""Head and format of the columns of a learning curve, as far as it has their values."""


@dataclass(frozen=True)
class TrainingRecord:
    """A training run.

    Attributes:
        config: All settings.
        split: The sides.
        epochs: The records of the epochs, as `train` gives them.
    """

    config: FinetuneConfig
    split: Split
    epochs: Sequence[Mapping[str, Any]]

    @property
    def sides(self) -> dict[str, tuple[Utterance, ...]]:
        """The utterances of each side by its name."""
        split = self.split
        return {"training": split.training, "validation": split.validation, "test": split.test}

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        sides = {
            name: {
                "recordings": len(items),
                "labels": Counter(label for item in items for label in item.answers),
                "speakers": _speakers(items),
            }
            for name, items in self.sides.items()
        }
        curve = [
            {key: epoch[key] for key in CURVE if epoch.get(key) is not None}
            for epoch in self.epochs
        ]
        return {
            "base": self.config.base,
            "settings": self.config.to_dict(),
            "split": sides,
            "epochs": curve,
        }


def describe_training(record: TrainingRecord) -> list[str]:
    """Paragraphs of Markdown."""
    sides = record.sides
    labels = sorted({label for items in sides.values() for item in items for label in item.answers})
    rows = [["side", "recordings", "speakers", *map(markdown_text, labels)]]
    for name, items in sides.items():
        counts = Counter(label for item in items for label in item.answers)
        sizes = [len(items), len(_speakers(items)), *(counts[label] for label in labels)]
        rows.append([name, *map(str, sizes)])
    shown = {
        key: style
        for key, style in SHOWN_CURVE.items()
        if any(epoch.get(key) is not None for epoch in record.epochs)
    }
    curve = [[head for head, _ in shown.values()] + [""]]
    curve += [
        [style.format(epoch[key]).replace("%", " %") for key, (_, style) in shown.items()]
        + ["best so far" if epoch["best"] else ""]
        for epoch in record.epochs
    ]
    return [
        "## Training",
        f"Base: {markdown_text(record.config.base)}. Settings beyond the defaults (all are in "
        "config.json):",
        markdown_table([["setting", "value"], *_list_settings(record.config)]),
        markdown_table(rows),
        "\n".join(
            f"- {name.capitalize()}: {counted(len(_speakers(items)), 'known speaker')}"
            + "".join(
                f": {markdown_text(shorten(_speakers(items), SHOWN_SPEAKERS))}"
                for _ in items[:1]
                if _speakers(items)
            )
            for name, items in sides.items()
        ),
        "Learning curve:",
        markdown_table(curve),
    ]


def _list_settings(config: FinetuneConfig) -> list[list[str]]:
    usual = FinetuneConfig(config.base).flat()
    rows = []
    for name, value in config.flat().items():
        if isinstance(value, dict) and name == "augmentation":
            value = ", ".join(f"{key} {item}" for key, item in value.items() if item)
        if name in SHOWN_SETTINGS or value != usual[name]:
            rows.append([name, markdown_text(str(value) or "none")])
    return rows


def _speakers(items: Sequence[Utterance]) -> list[str]:
    return sorted({"/".join(filter(None, item.voice)) for item in items if item.voice})
