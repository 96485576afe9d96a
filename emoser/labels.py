"""Names of emotions: canonical names, spellings found in checkpoints, and maps between sets.

The codes of a corpus (`W` for anger in EmoDB) are in its reader, because the same letter means
another emotion elsewhere.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeGuard

from emoser.text import CONTROL, printable, shorten

MAX_LETTERS = 200  # of a label

_SPELLINGS: Mapping[str, Sequence[str]] = {
    "neutral": ("neu", "n", "neutrality"),
    "calm": ("calmness",),
    "happy": ("hap", "h", "happiness", "joy", "joyful"),
    "sad": ("s", "sadness"),
    "angry": ("ang", "a", "anger"),
    "fear": ("fea", "fearful", "fearfulness", "afraid", "scared"),
    "disgust": ("dis", "disgusted", "disgusting"),
    "surprise": (
        *("sur", "surprised", "surprising"),
        *("ps", "pleasant surprise", "pleasant surprised"),
    ),
    "contempt": ("contemptuous",),
    "excited": ("exc", "excitement"),
    "frustrated": ("fru", "frustration"),
    "positive": ("pos",),
    "negative": ("neg",),
    "other": ("oth", "others"),
    "unknown": ("unk", "<unk>"),
}

CANONICAL_LABELS = tuple(_SPELLINGS)
"""The names that emoser itself uses, in the order of its tables."""

BILINGUAL = re.compile(r"^[^\x00-\x7f]+/")  # the first part of such a token

DIMENSIONS = ("arousal", "dominance", "valence")
"""Names of continuous outputs, in the order in which emoser shows them."""

ALIASES: Mapping[str, str] = {
    spelling: label for label, spellings in _SPELLINGS.items() for spelling in spellings
}
"""Spellings that published checkpoints use, in lower case, and the canonical name of each."""

_GROUPS: Mapping[str, Mapping[str, Sequence[str]]] = {
    "ekman": {
        "neutral": ("neutral", "calm"),
        "happy": ("happy", "excited"),
        "sad": ("sad",),
        "angry": ("angry", "frustrated"),
        "fear": ("fear",),
        "disgust": ("disgust", "contempt"),
        "surprise": ("surprise",),
    },
    "iemocap4": {
        "neutral": ("neutral", "calm"),
        "happy": ("happy", "excited"),
        "sad": ("sad",),
        "angry": ("angry",),
    },
    "valence3": {
        "neutral": ("neutral", "calm"),
        "positive": ("happy", "excited", "positive"),
        "negative": ("sad", "angry", "frustrated", "fear", "disgust", "contempt", "negative"),
    },
}

LABEL_SETS: Mapping[str, Mapping[str, str]] = {
    name: {label: target for target, labels in groups.items() for label in labels}
    for name, groups in _GROUPS.items()
}
"""Coarser label sets: Ekman's six and neutral, IEMOCAP's four, valence."""


def canonical_label(raw: str) -> str:
    """The canonical name of a label of a checkpoint; an unknown name is only normalised.

    Case, surrounding space, `_` and `-` are ignored. Of a bilingual token like emotion2vec's, whose
    first part has no Latin letters, the English part counts.

    Example:
        >>> canonical_label("ANGER"), canonical_label("ps"), canonical_label("Bored")
        ('angry', 'surprise', 'bored')
        >>> canonical_label("生气/angry"), canonical_label("happy/sad")
        ('angry', 'happy/sad')
    """
    name = BILINGUAL.sub("", raw)
    name = " ".join(name.replace("_", " ").replace("-", " ").casefold().split())
    return ALIASES.get(name, name)


def canonical_labels(raw: Sequence[str]) -> tuple[str, ...]:
    """Canonical names in the same order; raw names are kept where two would be equal.

    Example:
        >>> canonical_labels(["neu", "hap", "ang", "sad"])
        ('neutral', 'happy', 'angry', 'sad')
    """
    names = tuple(canonical_label(label) for label in raw)
    if len(set(names)) == len(names):
        return names
    return tuple(
        name if names.count(name) == 1 else label for name, label in zip(names, raw, strict=True)
    )


def find_label_faults(labels: Sequence[object]) -> list[str]:
    r"""What is wrong with the labels of a model or a table, one clause each; [] if nothing is.

    Labels are distinct names without control or path characters; one "/" is allowed, as in the
    bilingual labels of emotion2vec. Control characters are those of `emoser.text.CONTROL`.

    Example:
        >>> find_label_faults(["sad", "SAD ", "a\x1bb"])
        ["labels 'sad', 'SAD ' appear twice", "labels 'a\\x1bb' hold control or path characters"]
    """
    names = [name for name in labels if _is_name(name)]
    folded = [name.casefold().strip() for name in names]
    counts = Counter(folded)
    groups = {
        "are not names": [repr(name)[:MAX_LETTERS] for name in labels if not _is_name(name)],
        "appear twice": [
            _shown(name) for name, key in zip(names, folded, strict=True) if counts[key] > 1
        ],
        "hold control or path characters": [
            _shown(name)
            for name in names
            if CONTROL.search(name) or "\\" in name or name.count("/") > 1
        ],
        f"are longer than {MAX_LETTERS} letters": [
            _shown(name) for name in names if len(name) > MAX_LETTERS
        ],
    }
    return [f"labels {shorten(found)} {fault}" for fault, found in groups.items() if found]


def _is_name(label: object) -> TypeGuard[str]:
    return isinstance(label, str) and bool(label.strip())


def _shown(name: str) -> str:
    return f"'{printable(name[:MAX_LETTERS])}'"


def split_outputs(raw: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Canonical labels and the dimensions that follow them.

    Raises:
        ValueError: If a dimension stands before a label.

    Example:
        >>> split_outputs(["Arousal", "Valence"])
        ((), ('arousal', 'valence'))
    """
    names = canonical_labels(raw)
    labels = tuple(name for name in names if name not in DIMENSIONS)
    if any(name in DIMENSIONS for name in names[: len(labels)]):
        raise ValueError(f"outputs {list(raw)} mix labels and dimensions; labels come first")
    return labels, names[len(labels) :]


def order_dimensions(values: Mapping[str, float]) -> dict[str, float]:
    """The same values in the order in which emoser shows dimensions, others last.

    Example:
        >>> order_dimensions({"valence": 0.2, "arousal": 0.7})
        {'arousal': 0.7, 'valence': 0.2}
    """
    known = {name: values[name] for name in DIMENSIONS if name in values}
    return {**known, **values}


@dataclass(frozen=True)
class LabelMap:
    """The map from the labels of a checkpoint to the requested labels.

    Attributes:
        labels: The target labels, in order of first appearance among the source labels.
        targets: For each source label the index of its target, or None where it has none.
    """

    labels: tuple[str, ...]
    targets: tuple[int | None, ...]

    def apply(self, probabilities: Sequence[float]) -> tuple[list[float], float]:
        """Probabilities of the target labels (sum 1) and the mass that had no target.

        If no mass has a target, the probabilities are equal.

        Example:
            >>> map_labels(("angry", "fear", "happy"), "iemocap4").apply([0.2, 0.5, 0.3])
            ([0.4, 0.6], 0.5)
        """
        summed = [0.0] * len(self.labels)
        unmapped = 0.0
        for target, probability in zip(self.targets, probabilities, strict=True):
            if target is None:
                unmapped += probability
            else:
                summed[target] += probability
        total = sum(summed)
        if total <= 0.0:
            return [1.0 / len(self.labels)] * len(self.labels), unmapped
        return [value / total for value in summed], unmapped


def map_labels(source: Sequence[str], target: str | Mapping[str, str]) -> LabelMap:
    """A map from the labels of a checkpoint to a named set or to the values of a mapping.

    Raises:
        ValueError: If the set is unknown, a key of the mapping is not a label of the
            checkpoint, or no label would be left.
    """
    if isinstance(target, str):
        if target not in LABEL_SETS:
            raise ValueError(
                f"labels={target!r} is not a known set; use one of {', '.join(LABEL_SETS)} "
                "or a mapping from the checkpoint's labels to yours"
            )
        mapping = LABEL_SETS[target]
    else:
        mapping = target
        strange = sorted(set(mapping) - set(source))
        if strange:
            raise ValueError(
                f"labels maps {', '.join(strange)}, which the checkpoint does not have; "
                f"its labels are {', '.join(source)}"
            )
    names = tuple(dict.fromkeys(mapping[label] for label in source if label in mapping))
    if faults := find_label_faults(names):
        raise ValueError(f"labels maps to {'; '.join(faults)}")
    if not names:
        raise ValueError(f"none of the labels {', '.join(source)} has a place in {target!r}")
    targets = tuple(names.index(mapping[label]) if label in mapping else None for label in source)
    return LabelMap(names, targets)
