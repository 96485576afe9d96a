"""Names of emotions: canonical names, spellings found in checkpoints, and maps between sets.

The codes of a corpus (`W` for anger in EmoDB) are in its reader, because the same letter means
another emotion elsewhere.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias, TypeGuard

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

PLACEHOLDER = re.compile(r"LABEL_\d+")
"""What transformers calls an output that has no name."""

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
    first part has no Latin letters, the English part counts. A placeholder (LABEL_0) stays.

    Example:
        >>> canonical_label("ANGER"), canonical_label("ps"), canonical_label("Bored")
        ('angry', 'surprise', 'bored')
        >>> canonical_label("生气/angry"), canonical_label("happy/sad")
        ('angry', 'happy/sad')
    """
    if PLACEHOLDER.fullmatch(raw):
        return raw
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


OTHER = "other"
"""The answer of a map for the labels that it leaves out."""

Labels: TypeAlias = str | Mapping[str, str] | Sequence[str]
"""A named set, a mapping from the checkpoint's labels, or names for outputs that have none."""


@dataclass(frozen=True)
class LabelMap:
    """The map from the labels of a checkpoint to the requested labels.

    Attributes:
        labels: The target labels, in order of first appearance among the source labels; "other"
            is last if it stands only for labels that the map leaves out.
        targets: For each source label the index of its target.
        left_out: Indices of the source labels that the map leaves out.
    """

    labels: tuple[str, ...]
    targets: tuple[int, ...]
    left_out: tuple[int, ...] = ()

    def apply(
        self, scores: Sequence[float], *, multi_label: bool = False
    ) -> tuple[list[float], float]:
        """Scores of the target labels, and that of the labels that the map leaves out.

        Probabilities are added; independent scores (`multi_label`) become the highest of them.

        Example:
            >>> map_labels(("angry", "fear", "happy"), "iemocap4").apply([0.2, 0.5, 0.3])
            ([0.2, 0.3, 0.5], 0.5)
        """
        combine = max if multi_label else sum
        places = range(len(self.labels))
        grouped = [
            [score for target, score in zip(self.targets, scores, strict=True) if target == place]
            for place in places
        ]
        left_out = [scores[place] for place in self.left_out]
        return [combine(group) for group in grouped], combine(left_out) if left_out else 0.0


def map_labels(source: Sequence[str], target: Labels, *, raw: Sequence[str] = ()) -> LabelMap:
    """A map from the labels of a checkpoint to a named set, or to names of the user.

    Args:
        source: The labels of the checkpoint.
        target: The name of a set; a mapping, whose keys may be spelled in any known way; or one
            name for each output of a checkpoint that names none (LABEL_0, LABEL_1, ...).
        raw: The labels as spelled in the checkpoint, in the same order.

    Raises:
        ValueError: If the set is unknown, a key of the mapping is not a label of the
            checkpoint, no label would be left, or names are given for outputs that have others.

    Example:
        >>> map_labels(("LABEL_0", "LABEL_1"), ["calm", "angry"]).labels
        ('calm', 'angry')
        >>> map_labels(("angry", "happy"), {"angry": "bad"}).labels
        ('bad', 'other')
    """
    if isinstance(target, str):
        if target not in LABEL_SETS:
            raise ValueError(
                f"labels={target!r} is not a known set; use one of {', '.join(LABEL_SETS)} "
                "or a mapping from the checkpoint's labels to yours"
            )
        mapping = LABEL_SETS[target]
    elif isinstance(target, Mapping):
        mapping = _resolve_keys(source, raw or source, target)
    else:
        mapping = _name_outputs(source, target)
    named = [mapping.get(label) for label in source]
    if faults := find_label_faults([name for name in dict.fromkeys(named) if name is not None]):
        raise ValueError(f"labels maps to {'; '.join(faults)}")
    if not any(named):
        raise ValueError(f"none of the labels {', '.join(source)} has a place in {target!r}")
    left_out = tuple(place for place, name in enumerate(named) if name is None)
    names = dict.fromkeys(name for name in named if name is not None)
    labels = tuple(names) if not left_out else tuple(dict.fromkeys((*names, OTHER)))
    return LabelMap(labels, tuple(labels.index(name or OTHER) for name in named), left_out)


def _resolve_keys(
    source: Sequence[str], raw: Sequence[str], target: Mapping[str, str]
) -> dict[str, str]:
    """A mapping with the labels of the checkpoint as keys."""
    known = {label: label for label in source}
    known = {**dict(zip(raw, source, strict=True)), **known}
    mapping: dict[str, str] = {}
    strange = []
    for key, name in target.items():
        label = known.get(key) or known.get(canonical_label(str(key)))
        if label is None:
            strange.append(str(key))
        elif mapping.setdefault(label, name) != name:
            raise ValueError(
                f"labels maps {label} to {mapping[label]} and to {name}; leave one out"
            )
    if strange:
        raise ValueError(
            f"labels maps {', '.join(sorted(strange))}, which the checkpoint does not have; "
            f"its labels are {', '.join(source)}"
        )
    return mapping


def _name_outputs(source: Sequence[str], names: Sequence[str]) -> dict[str, str]:
    """A mapping that names the outputs of a checkpoint in order."""
    if len(names) != len(source) or len(set(names)) != len(names):
        raise ValueError(
            f"labels has {len(names)} names ({', '.join(map(str, names))}) and the checkpoint has "
            f"{len(source)} outputs; pass one name for each, all different"
        )
    canonical = [canonical_label(str(name)) for name in names]
    if canonical != list(source) and not all(map(PLACEHOLDER.fullmatch, source)):
        raise ValueError(
            f"the checkpoint names its outputs itself ({', '.join(source)}); pass a mapping from "
            "its labels to yours"
        )
    return dict(zip(source, names, strict=True))
