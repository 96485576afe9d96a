"""The mean logits of the training speakers, to which `EmotionClassifier.adapt` moves a speaker."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from emoser.finetune.data.recordings import Recordings
from emoser.finetune.data.utterance import Utterance
from emoser.finetune.scoring.logits import predict_logits
from emoser.models.model import EmotionModel

CLIPS_PER_LABEL = 8  # of each speaker
MAX_CLIPS = 1_000


def measure_mean_logits(
    model: EmotionModel,
    recordings: Recordings,
    utterances: Sequence[Utterance],
    *,
    device: torch.device | None = None,
) -> tuple[float, ...]:
    """The field `mean_logits` of a model's configuration; empty if its head is not linear.

    Up to eight clips for each label of each speaker are scored, at most 1,000 in all.

    Args:
        model: The model; its temperature does not count.
        recordings: The decoded clips, or where they are decoded.
        utterances: Those that it was trained on.
        device: Where to compute; by default where the model is.

    Raises:
        AudioError: Naming all recordings that cannot be read.
    """
    if not model.config.is_linear:
        return ()
    chosen = choose_clips(utterances, model.config.labels)
    scores = predict_logits(model, recordings.select(chosen), device=device)
    return average_logits(scores * model.config.temperature, chosen)


def choose_clips(utterances: Sequence[Utterance], labels: Sequence[str]) -> list[Utterance]:
    """Evenly spaced clips of each label of each speaker, and of all these if they are too many.

    All clips of unknown speakers are taken.

    Example:
        >>> rows = [Utterance(f"{place}.wav", "sad", speaker="A") for place in range(15)]
        >>> [item.path[:-4] for item in choose_clips(rows, ["sad", "happy"])]
        ['0', '2', '4', '6', '8', '10', '12', '14']
    """
    cells: dict[object, list[Utterance]] = defaultdict(list)
    for item in utterances:
        if item.label in labels:
            cells[item.voice or item.path, item.label].append(item)
    chosen = [item for cell in cells.values() for item in _thin(cell, CLIPS_PER_LABEL)]
    return _thin(chosen, MAX_CLIPS)


def _thin(items: list[Utterance], count: int) -> list[Utterance]:
    """At most so many of the items, evenly spaced: files of one kind often follow one another."""
    if len(items) <= count:
        return items
    return [items[place] for place in np.linspace(0, len(items) - 1, count).round().astype(int)]


def average_logits(
    logits: NDArray[np.floating], utterances: Sequence[Utterance]
) -> tuple[float, ...]:
    """The mean over speakers of the mean over labels of the mean logits, (N, C) -> C numbers.

    What all logits of a recording have in common, which a softmax ignores, is left out: they may
    be logarithms of probabilities.

    Example:
        >>> said = [("sad", "A"), ("happy", "A"), ("happy", "A"), ("sad", "B")]
        >>> rows = [Utterance("a.wav", label, speaker=name) for label, name in said]
        >>> average_logits(np.array([[4.0, 0], [0, 2], [0, 4], [0, 0]]), rows)
        (0.125, -0.125)
    """
    centred = np.asarray(logits, np.float64)
    centred = centred - centred.mean(axis=1, keepdims=True)
    speakers: dict[object, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for place, item in enumerate(utterances):
        speakers[item.voice][item.label].append(place)
    means = [
        np.mean([centred[places].mean(axis=0) for places in cells.values()], axis=0)
        for cells in speakers.values()
    ]
    return tuple(map(float, np.mean(means, axis=0)))
