"""Measure what `EmotionClassifier.adapt` gains on unseen speakers, by how many recordings it gets.

    python examples/bundled/measure_adaptation.py --base PATH --data PATH --output DIR
    python examples/bundled/measure_adaptation.py --checkpoint emoser-tiny --data PATH

The splits, frames and heads are those of `measure_small.py`, four labels. DIR is that of
`train_small.py`: where it holds the heads, this takes a few minutes, and no model runs. Of each
unseen speaker, recordings are drawn for the adaptation, many times; the others are classified with
and without it. A figure is the mean change of UAR over speakers and draws, beside the share of
speakers that lose more than 0.01. "mixed" are drawn at random, "even" has as many of each label,
"two" and "one" have so many labels, chosen at random, and "neutral" has that one.

The second command scores a finished checkpoint on the speakers that it states to be held out.
"""

import argparse
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from measure_small import PLANS, SMALL, LastLayers, find_places, open_layers
from network import ALL_LABELS, LABELS
from numpy.typing import NDArray
from small import read_speech
from store_means import CORPORA

from emoser.checkpoints.resolve import find_checkpoint
from emoser.checkpoints.save import load_model
from emoser.finetune import Utterance, read_corpus
from emoser.finetune.scoring.logits import predict_logits
from emoser.finetune.scoring.mean_logits import average_logits
from emoser.inference.adaptation import SHRINKAGE, shift_logits

NUM_DRAWS = 20
LOSS = 0.01
COUNTS = (2, 4, 8, 16, 32)
SHRINKAGES = (0, 4, 8, 16)
NUM_LABELS: Mapping[str, int] = {"even": len(LABELS), "two": 2, "one": 1}  # of a kind of draw
KINDS = ("mixed", "even", "two", "one", "neutral")
ROWS: Mapping[str, tuple[str, slice]] = {
    "RAVDESS by actors": ("actors", slice(None)),
    "nEMO by speakers": ("speakers", slice(None)),
    "RAVDESS to nEMO": ("cross", slice(0, 1)),
    "nEMO to RAVDESS": ("cross", slice(1, 2)),
}

Logits = NDArray[np.floating]
Places = NDArray[np.int64]


class Speaker(NamedTuple):
    """An unseen speaker, by a head that was trained on others."""

    logits: Logits  # (N, C)
    truth: Places  # (N,)
    means: tuple[float, ...]  # mean logits of the speakers that the head was trained on


def fit_speakers(
    layers: LastLayers, speech: list[Utterance], plan: str, chosen: slice
) -> Iterator[Speaker]:
    """The speakers of the tests of a plan."""
    columns = [ALL_LABELS.index(label) for label in LABELS]
    places = [place for place, item in enumerate(speech) if usable(item)]
    rows = np.zeros((len(speech), len(LABELS)), np.float32)
    for split in PLANS[plan](speech)[chosen]:
        rows[places] = layers.fit(split).predict(layers.tested, places)[:, columns]
        trained = [item for item in split.training if usable(item)]
        means = average_logits(rows[find_places(speech, trained)], trained)
        for voice in dict.fromkeys(item.voice for item in split.test if usable(item)):
            items = [item for item in split.test if item.voice == voice and usable(item)]
            truth = np.array([LABELS.index(item.label) for item in items])
            yield Speaker(rows[find_places(speech, items)], truth, means)


def score_speakers(name: str, speech: list[Utterance]) -> dict[str, list[Speaker]]:
    """The held-out speakers of a checkpoint, by corpus."""
    model = load_model(find_checkpoint(name).folder)
    held_out = model.config.training["held_out"]
    items = [item for item in speech if item.speaker in held_out.get(item.corpus, ())]
    items = [item for item in items if usable(item)]
    logits = predict_logits(model, items) * model.config.temperature
    columns = [model.config.labels.index(label) for label in LABELS]
    means = tuple(model.config.mean_logits[column] for column in columns)
    found: dict[str, list[Speaker]] = defaultdict(list)
    for voice in sorted({(item.corpus, item.speaker or "") for item in items}):
        places = [place for place, item in enumerate(items) if item.voice == voice]
        truth = np.array([LABELS.index(items[place].label) for place in places])
        rows = logits[np.ix_(places, columns)]
        centred = rows - rows.mean(axis=1, keepdims=True)  # they are logarithms of probabilities
        found[voice[0]].append(Speaker(centred, truth, means))
    return found


def usable(item: Utterance) -> bool:
    """Whether a clip has one of the four labels, and its corpus all of them."""
    return item.label in LABELS and item.corpus in CORPORA


def draw(truth: Places, count: int, kind: str, generator: np.random.Generator) -> Places | None:
    """Some clips of a speaker for the adaptation; None if there are too few of the kind."""
    shuffled = generator.permutation(len(truth))
    if kind == "mixed":
        return shuffled[:count] if count < len(truth) else None
    labels = np.arange(len(LABELS))
    chosen = [0] if kind == "neutral" else generator.permutation(labels)[: NUM_LABELS[kind]]
    each = -(-count // len(chosen))
    rows = [shuffled[truth[shuffled] == label][:each] for label in chosen]
    if any(len(row) < each for row in rows):
        return None
    return np.stack(rows, axis=1).ravel()[:count]


def score_uar(logits: Logits, truth: Places) -> float:
    """Mean recall over the labels that occur."""
    correct = logits.argmax(axis=1) == truth
    return float(np.mean([correct[truth == label].mean() for label in np.unique(truth)]))


def gain(speaker: Speaker, count: int, kind: str, shrinkage: float) -> float | None:
    """Mean change of the speaker's UAR; None if there are too few clips of the kind."""
    generator = np.random.default_rng(0)
    changes = []
    for _ in range(NUM_DRAWS):
        drawn = draw(speaker.truth, count, kind, generator)
        if drawn is None:
            return None
        rest = np.setdiff1d(np.arange(len(speaker.truth)), drawn)
        shift = shift_logits(speaker.logits[drawn], speaker.means, shrinkage=shrinkage)
        logits, truth = speaker.logits[rest], speaker.truth[rest]
        changes.append(score_uar(logits - shift, truth) - score_uar(logits, truth))
    return float(np.mean(changes))


def describe(speakers: Sequence[Speaker], count: int, kind: str, shrinkage: float) -> str:
    """Mean change and share of losers; "" if fewer than half of the speakers have the clips."""
    found = [gain(speaker, count, kind, shrinkage) for speaker in speakers]
    changes = np.array([value for value in found if value is not None])
    if len(changes) < len(speakers) / 2:
        return ""
    return f"{changes.mean():+.3f} ({np.mean(changes < -LOSS):.0%})"


def tabulate(speakers: Mapping[str, Sequence[Speaker]]) -> Iterator[str]:
    """Lines of both tables in Markdown."""
    yield f"| recordings | shrinkage | {' | '.join(speakers)} |"
    yield "|---|---" + "|---" * len(speakers) + "|"
    for count in COUNTS:
        for shrinkage in SHRINKAGES:
            cells = [describe(rows, count, "mixed", shrinkage) for rows in speakers.values()]
            if any(cells):
                yield f"| {count} mixed | {shrinkage} | {' | '.join(cells)} |"
    yield ""
    yield f"| recordings | {' | '.join(speakers)} |"
    yield "|---" + "|---" * len(speakers) + "|"
    bases = [np.mean([score_uar(*row[:2]) for row in rows]) for rows in speakers.values()]
    yield f"| none: UAR | {' | '.join(f'{value:.3f}' for value in bases)} |"
    for kind in KINDS:
        for count in COUNTS:
            cells = [describe(rows, count, kind, SHRINKAGE) for rows in speakers.values()]
            if any(cells):
                yield f"| {count} {kind} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--base", default="openai/whisper-base", help="Hub id or folder")
    parser.add_argument("--data", type=Path, required=True, help="folder of manifest.csv")
    parser.add_argument("--output", type=Path, help="folder of the run")
    parser.add_argument("--checkpoint", help="score the speakers that this one was not trained on")
    given = parser.parse_args()
    if (given.output is None) == (given.checkpoint is None):
        parser.error("give either --output or --checkpoint")
    torch.set_num_threads(1)  # the same numbers on every machine
    if given.checkpoint:
        held_out = score_speakers(given.checkpoint, read_corpus(given.data / "manifest.csv"))
        print(f"{given.checkpoint}: change of UAR (speakers that lose more than {LOSS})")
        print("\n".join(tabulate(held_out)))
        return
    speech = read_speech(given.data)
    layers = open_layers(given.base, speech, given.output)
    speakers = {title: list(fit_speakers(layers, speech, *plan)) for title, plan in ROWS.items()}
    print(f"{SMALL}: change of UAR (speakers that lose more than {LOSS})")
    print("\n".join(tabulate(speakers)))


if __name__ == "__main__":
    main()
