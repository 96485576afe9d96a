"""What utterances are annotated with, and so what a model is trained to give."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from emoser.finetune.data.utterance import Utterance
from emoser.labels import CANONICAL_LABELS, order_dimensions
from emoser.models.config import ModelConfig
from emoser.text import counted, join_words, shorten

SCALES = ((0.0, 1.0), (-1.0, 1.0), (1.0, 5.0), (1.0, 7.0), (1.0, 9.0), (0.0, 100.0))
"""Scales in use. One that is not stated is the first of these that holds all values."""


def order_labels(utterances: Iterable[Utterance]) -> tuple[str, ...]:
    """The labels of utterances, canonical ones first and in their order.

    Example:
        >>> order_labels([Utterance("a", "sad"), Utterance("b", "bored"), Utterance("c", "happy")])
        ('happy', 'sad', 'bored')
    """
    found = {label for item in utterances for label in item.classes}
    known = [label for label in CANONICAL_LABELS if label in found]
    return (*known, *sorted(found - set(known)))


def find_outputs(utterances: Sequence[Utterance]) -> ModelConfig:
    """Labels and dimensions of a model for utterances, which state their scale.

    Raises:
        ValueError: If there is nothing to learn, one label only, or some utterances lack what
            others have.

    Example:
        >>> rows = [Utterance(f"{n}.wav", dimensions={"valence": n}, scale=(0, 9)) for n in (3, 4)]
        >>> find_outputs(rows).outputs
        ('valence',)
    """
    labels, dimensions = order_labels(utterances), find_dimensions(utterances)
    if labels and (unlabelled := [item.path for item in utterances if not item.is_labelled]):
        raise ValueError(f"{_some(unlabelled, utterances)} no label: {shorten(unlabelled)}")
    multi_label = any(item.labels is not None for item in utterances)
    if (len(labels) == 1 and not multi_label) or not (labels or dimensions):
        raise ValueError(
            f"all recordings have the label {labels[0]}; training needs at least two labels"
            if labels
            else "there are no recordings; training needs some with at least two labels, or with "
            "dimensions"
        )
    scale = find_common_scale(utterances) if dimensions else ()
    return ModelConfig(
        labels=labels,
        dimensions=dimensions,
        dimension_scale=scale,
        multi_label=multi_label and bool(labels),
    )


def find_common_scale(utterances: Iterable[Utterance]) -> tuple[float, ...]:
    """The scale that all utterances state; empty if they state several or none."""
    scales = {item.scale for item in utterances if item.dimensions and item.scale}
    return next(iter(scales)) if len(scales) == 1 else ()


def find_dimensions(utterances: Sequence[Utterance]) -> tuple[str, ...]:
    """The dimensions of utterances.

    Raises:
        ValueError: If some have one that others lack.
    """
    found = order_dimensions(dict.fromkeys((k for i in utterances for k in i.dimensions), 0.0))
    for name in found:
        absent = [item.path for item in utterances if name not in item.dimensions]
        if absent:
            raise ValueError(f"{_some(absent, utterances)} no value of {name}: {shorten(absent)}")
    return tuple(found)


def choose_targets(utterances: Sequence[Utterance], targets: str) -> list[Utterance]:
    """The utterances with what is learned of their annotation, and with a scale.

    `targets` are "labels", "dimensions", or "auto" for all.

    Raises:
        ValueError: If an utterance has none of it.
    """
    if targets == "auto":
        return state_scale(utterances)
    absent = [
        item.path
        for item in utterances
        if not (item.is_labelled if targets == "labels" else item.dimensions)
    ]
    if absent:
        raise ValueError(
            f"targets is {targets!r}, and {_some(absent, utterances)} none: {shorten(absent)}"
        )
    if targets == "labels":
        return [replace(item, dimensions={}, scale=None) for item in utterances]
    return state_scale([replace(item, label="", votes={}, labels=None) for item in utterances])


def state_scale(utterances: Sequence[Utterance], stated: Sequence[float] = ()) -> list[Utterance]:
    """The utterances with a scale, for those that state none.

    Args:
        utterances: The utterances.
        stated: The scale of a model; without one, the scale is found from the values.

    Raises:
        ValueError: If values are outside the scale of the model.

    Example:
        >>> rows = [Utterance("a.wav", dimensions={"valence": value}) for value in (2, 6)]
        >>> state_scale(rows)[0].scale, state_scale(rows, (1, 9))[0].value("valence")
        ((1.0, 7.0), 0.125)
    """
    open_items = [item for item in utterances if item.dimensions and item.scale is None]
    if not open_items:
        return list(utterances)
    values = [value for item in open_items for value in item.dimensions.values()]
    low, high = stated or find_scale(min(values), max(values))
    outside = [item.path for item in open_items if not _fits(item, low, high)]
    if outside:
        raise ValueError(
            f"{_some(outside, utterances)} values outside the scale of the model, {low:g} to "
            f"{high:g}: {shorten(outside)}; state the scale of the recordings with scale= (--scale)"
        )
    chosen = set(map(id, open_items))
    return [replace(i, scale=(low, high)) if id(i) in chosen else i for i in utterances]


def find_scale(lowest: float, highest: float) -> tuple[float, float]:
    """The scale of some values: the first usual one that holds them, else their own range.

    Example:
        >>> find_scale(0.1, 0.7), find_scale(2, 4.5), find_scale(-3, 3)
        ((0.0, 1.0), (1.0, 5.0), (-3, 3))
    """
    if lowest == highest and not any(low <= lowest <= high for low, high in SCALES):
        return lowest - 0.5, highest + 0.5
    return next(
        ((low, high) for low, high in SCALES if low <= lowest and highest <= high),
        (lowest, highest),
    )


def note_scale(utterances: Sequence[Utterance]) -> list[str]:
    """A remark on the scale of the dimensions, or nothing.

    Example:
        >>> note_scale([Utterance("a.wav", dimensions={"valence": 2}, scale=(1, 5))])
        ['the values of valence are annotated from 1 to 5; the figures are on a scale of 0 to 1']
    """
    scales = dict.fromkeys(item.scale for item in utterances if item.dimensions and item.scale)
    names = order_dimensions(dict.fromkeys((k for i in utterances for k in i.dimensions), 0.0))
    if not scales:
        return []
    shown = join_words([f"{low:g} to {high:g}" for low, high in scales])
    return [
        f"the values of {join_words(list(names))} are annotated from {shown}; the figures are on "
        "a scale of 0 to 1"
    ]


def _fits(item: Utterance, low: float, high: float) -> bool:
    return all(low <= value <= high for value in item.dimensions.values())


def _some(items: Sequence[object], utterances: Sequence[Utterance]) -> str:
    verb = "has" if len(items) == 1 else "have"
    return f"{len(items)} of {counted(len(utterances), 'recording')} {verb}"
