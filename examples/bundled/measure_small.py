"""Evaluate the recipe of emoser-small on speakers that the head was not trained on.

    python examples/bundled/measure_small.py --base openai/whisper-base --data PATH --output DIR

Four sets of splits: RAVDESS actors in five folds, with nEMO, CREMA-D and the other actors for
training; each speaker of nEMO alone, with all others for training; RAVDESS or nEMO alone for
training, the other for testing; and each corpus for testing, with both others for training. The
frames are those of `train_small.py`, kept in DIR. A head is trained in a minute or two, the third
layer is tuned in four, and both are kept there, too. The calibration error of a split has the
temperature of the other splits of its rows.

The options evaluate another recipe of the head on the same frames, in a folder of its own.
"""

import argparse
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from frame_head import (
    FRAMES,
    NUM_COPIES,
    NUM_SEEDS,
    FrameHead,
    Frames,
    encode_corpus,
    encode_speech,
    fit_frame_head,
    join_frames,
)
from last_layer import (
    INNER,
    LastLayer,
    build_inner,
    mix_states,
    start_last_layer,
    tune_last_layer,
)
from measure import (
    EVERY,
    Logits,
    Row,
    Split,
    cross_calibrate,
    index_labels,
    recall,
    score,
    store,
    write_line,
)
from network import ALL_LABELS, LABELS
from small import ONLY, SHARES, HeadConfig, build_network, fit_head, read_speech
from torch import Tensor

from emoser.finetune import Utterance
from emoser.finetune.scoring.calibration import fit_temperature
from emoser.finetune.scoring.report import Evaluation, assess
from emoser.models.model import EmotionModel

NUM_FOLDS = 5
SMALL = "emoser-small"
HEADS, LAYERS = "heads", "layers"  # folders of the splits
WHOLE = "all"  # the split whose head is trained on all clips
ROWS = (
    Row("RAVDESS, 4 classes, 5 folds", "actors", EVERY, "ravdess"),
    Row("RAVDESS, 8 classes, 5 folds", "actors", EVERY, "ravdess", ALL_LABELS),
    Row("nEMO, 4 classes, mean of 9 speakers", "speakers", EVERY, "nemo", by_speaker=True),
    Row("RAVDESS to nEMO, 4 classes", "cross", slice(0, 1), "nemo"),
    Row("nEMO to RAVDESS, 4 classes", "cross", slice(1, 2), "ravdess"),
    Row("RAVDESS and CREMA-D to nEMO, 4 classes", "corpora", slice(1, 2), "nemo"),
    Row("nEMO and CREMA-D to RAVDESS, 4 classes", "corpora", slice(0, 1), "ravdess"),
    Row("RAVDESS and nEMO to CREMA-D, 2 classes", "corpora", slice(2, 3), "cremad", ONLY["cremad"]),
)
TARGETS = (0.85, 0.77, 0.82, 0.36, 0.52)  # UAR of the first rows that the recipe was meant to reach
LINEAR_ONLY = ("copies", "ridge", "deviation_scale", "speaker_scale", "cremad_share")
SERVED = (ROWS[0], ROWS[2])  # unseen speakers, the labels of the checkpoint


def split_actors(speech: list[Utterance]) -> list[Split]:
    """Test fold k: the actors of RAVDESS whose number minus 1 is k modulo 5."""
    folds = [
        {
            item.voice
            for item in speech
            if item.corpus == "ravdess" and (int(item.speaker or "") - 1) % NUM_FOLDS == fold
        }
        for fold in range(NUM_FOLDS)
    ]
    return [_hold_out(speech, voices, f"fold {fold}") for fold, voices in enumerate(folds)]


def split_speakers(speech: list[Utterance]) -> list[Split]:
    """Each speaker of nEMO alone."""
    names = sorted({item.speaker or "" for item in speech if item.corpus == "nemo"})
    return [_hold_out(speech, {("nemo", name)}, f"speaker {name}") for name in names]


def split_pair(speech: list[Utterance]) -> list[Split]:
    """RAVDESS alone for training, tested on nEMO, and the other way round."""
    return [
        Split(
            f"{learned} to {tested}",
            [item for item in speech if item.corpus == learned],
            [item for item in speech if item.corpus == tested],
        )
        for learned, tested in (("ravdess", "nemo"), ("nemo", "ravdess"))
    ]


def split_corpora(speech: list[Utterance]) -> list[Split]:
    """Each corpus alone, with all others for training."""
    present = {item.corpus for item in speech}
    return [
        Split(
            f"without {corpus}",
            [item for item in speech if item.corpus != corpus],
            [item for item in speech if item.corpus == corpus],
        )
        for corpus in SHARES
        if corpus in present
    ]


PLANS = {
    "actors": split_actors,
    "speakers": split_speakers,
    "cross": split_pair,
    "corpora": split_corpora,
}


def _hold_out(speech: list[Utterance], voices: Collection[object], name: str) -> Split:
    training = [item for item in speech if item.voice not in voices]
    return Split(name, training, [item for item in speech if item.voice in voices])


@dataclass(frozen=True)
class FrameHeads:
    """Heads on the frozen encoder for some splits.

    Attributes:
        copies: Frames of the clips to train on and of their varied copies.
        tested: Of these clips, and of those that are tested alone.
        speech: All of them, in this order.
        folder: Where heads are kept, by the name of their split.
        num_seeds: Of each head.
    """

    copies: Sequence[Frames]
    tested: Frames
    speech: Sequence[Utterance]
    folder: Path
    num_seeds: int = NUM_SEEDS

    def fit(self, split: Split) -> FrameHead:
        """The head of a split, from its file if it exists."""
        file = self.folder / f"{split.name}.pt"
        if not file.is_file():
            training = find_places(self.speech, split.training)
            head = fit_frame_head(self.copies, training, split.training, num_seeds=self.num_seeds)
            file.parent.mkdir(parents=True, exist_ok=True)
            torch.save(head.state_dict(), file)
            print(f"trained {split.name}", flush=True)
        return FrameHead.restore(torch.load(file, weights_only=True))

    def predict(self, split: Split) -> Logits:
        """Logits of the tested clips of a split."""
        return self.fit(split).predict(self.tested, find_places(self.speech, split.test))


@dataclass(frozen=True)
class LastLayers:
    """The tuned layers of emoser-small, with their heads, for some splits.

    Attributes:
        heads: Those on the frozen encoder, with which the tuning starts.
        model: The frozen encoder.
        copies: Frames before its last layer, of the clips to train on and their varied copies.
        tested: Of these clips, and of those that are tested alone.
        folder: Where layers are kept, by the name of their split.
    """

    heads: FrameHeads
    model: EmotionModel
    copies: Sequence[Frames]
    tested: Frames
    folder: Path

    def fit(self, split: Split) -> LastLayer:
        """Layer and head of a split, from their file if it exists."""
        file = self.folder / f"{split.name}.pt"
        if not file.is_file():
            training = find_places(self.heads.speech, split.training)
            start = start_last_layer(self.model, self.heads.fit(split), self.copies[0], training)
            learned = tune_last_layer(start, self.copies, training, split.training)
            file.parent.mkdir(parents=True, exist_ok=True)
            torch.save(mix_states(start, learned), file)
            print(f"tuned {split.name}", flush=True)
        return LastLayer.restore(self.model, torch.load(file, weights_only=True))

    def predict(self, split: Split) -> Logits:
        """Logits of the tested clips of a split."""
        places = find_places(self.heads.speech, split.test)
        return self.fit(split).predict(self.tested, places)


def open_layers(
    base: str, speech: Sequence[Utterance], output: Path, *, bursts: Sequence[Utterance] = ()
) -> LastLayers:
    """The layers of a run, after encoding what is missing.

    Args:
        base: The encoder, as a Hub id or a folder.
        speech: The clips to train on.
        output: The folder of the run.
        bursts: Clips of another corpus that are tested alone.
    """
    model, inner = build_network(base), build_inner(base)
    copies = encode_speech(model, speech, output / FRAMES)
    before = encode_speech(inner, speech, output / INNER)
    tested = [before[0]]
    if bursts:
        file = output / INNER / f"{bursts[0].corpus}-copy0.npz"
        tested.append(encode_corpus(inner, bursts, file, 0))
    folder = output / SMALL
    heads = FrameHeads(copies, copies[0], [*speech, *bursts], folder / HEADS)
    return LastLayers(heads, model, before, join_frames(tested), folder / LAYERS)


@dataclass(frozen=True)
class LinearHeads:
    """Linear heads on pooled features for some splits.

    Attributes:
        features: Of all copies of the clips to train on, (copies, N, D).
        tested: Of these N clips and of those that are tested alone, (N + M, D).
        speech: All of them, in this order.
        config: How they are fitted.
    """

    features: Tensor
    tested: Tensor
    speech: Sequence[Utterance]
    config: HeadConfig

    def predict(self, split: Split) -> Logits:
        """Logits of the tested clips of a split."""
        training = find_places(self.speech, split.training)
        head = fit_head(self.features[:, training], split.training, self.config)
        return head.predict(self.tested[find_places(self.speech, split.test)])


def find_places(speech: Sequence[Utterance], chosen: Sequence[Utterance]) -> list[int]:
    """Where some clips are among all."""
    places = {id(item): place for place, item in enumerate(speech)}
    return [places[id(item)] for item in chosen]


def measure(predict: Callable[[Split], Logits], speech: list[Utterance], folder: Path) -> None:
    """Train and test the missing splits of all plans; their logits go to a folder."""
    for plan, divide in PLANS.items():
        measure_splits(predict, divide(speech), folder / plan)


def measure_splits(
    predict: Callable[[Split], Logits], splits: Sequence[Split], folder: Path
) -> None:
    """Train and test the missing ones of some splits."""
    for split in splits:
        file = folder / f"{split.name}.npz"
        if not file.is_file():
            store(file, predict(split), ALL_LABELS)


def plan_splits(speech: list[Utterance]) -> Iterator[tuple[str, Split]]:
    """All splits, each with the name of its plan."""
    for plan, divide in PLANS.items():
        for split in divide(speech):
            yield plan, split


def tabulate_small(folder: Path, speech: list[Utterance], name: str) -> Iterator[str]:
    """Lines of the table of results in Markdown."""
    yield "| row | method | seeds | splits | UAR | deviation | 95 % over speakers | ECE |"
    yield "|---|---|---|---|---|---|---|---|"
    for row in ROWS:
        splits = PLANS[row.plan](speech)
        found = score(folder / row.plan, row, splits)
        if found is not None:
            yield write_line(row.title, name, [found], len(splits[row.splits]))


def compare_targets(folder: Path, speech: list[Utterance]) -> str:
    """Two sentences: the targets that are reached, and those that are not."""
    reached, missed = [], []
    for row, target in zip(ROWS, TARGETS, strict=False):
        found = score(folder / row.plan, row, PLANS[row.plan](speech))
        if found is not None:
            (reached if found.uar >= target else missed).append(f"{row.title} ({target:.2f})")
    return (
        f"Targets that are reached: {'; '.join(reached) or 'none'}. "
        f"Targets that are not: {'; '.join(missed) or 'none'}."
    )


def average_rows(folder: Path, speech: list[Utterance]) -> float:
    """Mean UAR of the rows that have targets, folds and transfer alike."""
    found = [score(folder / row.plan, row, PLANS[row.plan](speech)) for row in ROWS[: len(TARGETS)]]
    return float(np.mean([item.uar for item in found if item is not None]))


def gather(
    folder: Path, speech: list[Utterance], rows: Sequence[Row] = SERVED
) -> list[tuple[Logits, list[Utterance]]]:
    """Logits of the four labels and recordings of every split of some rows."""
    return [
        part
        for row in rows
        for part in recall(
            folder / row.plan, PLANS[row.plan](speech)[row.splits], (row.corpus,), LABELS
        )
    ]


def calibrate(folder: Path, speech: list[Utterance]) -> tuple[float, float]:
    """Temperature for unseen speakers, and the calibration error with that of other splits."""
    parts = gather(folder, speech)
    logits = [part for part, _ in parts]
    truths = [index_labels(items, LABELS) for _, items in parts]
    temperature = fit_temperature(np.concatenate(logits), np.concatenate(truths))
    return temperature, cross_calibrate(logits, truths)


def assess_corpora(
    folder: Path, speech: list[Utterance], temperature: float
) -> dict[str, Evaluation]:
    """Figures of each corpus and of both on unseen speakers, four labels."""
    sides = {row.corpus: gather(folder, speech, [row]) for row in SERVED}
    sides["both"] = [part for parts in sides.values() for part in parts]
    return {
        name: assess(
            np.concatenate([part for part, _ in parts]) / temperature,
            [item for _, items in parts for item in items],
            LABELS,
            protocol="every speaker tested by a head that was trained on the others",
        )
        for name, parts in sides.items()
        if parts
    }


def main() -> None:
    usual = HeadConfig()
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--base", default="openai/whisper-base", help="Hub id or folder")
    parser.add_argument("--data", type=Path, required=True, help="folder of manifest.csv")
    parser.add_argument("--output", type=Path, required=True, help="folder of the results")
    recipe = parser.add_mutually_exclusive_group()
    recipe.add_argument("--frozen", action="store_true", help="no layer is tuned")
    recipe.add_argument("--linear", action="store_true", help="a linear head, with these settings:")
    parser.add_argument("--copies", type=int, default=NUM_COPIES, help="varied copies of a clip")
    parser.add_argument("--ridge", type=float, default=usual.ridge)
    parser.add_argument("--deviation-scale", type=float, default=usual.deviation_scale)
    parser.add_argument("--speaker-scale", type=float, default=usual.speaker_scale)
    parser.add_argument("--cremad-share", type=float, default=SHARES["cremad"])
    given = parser.parse_args()
    changed = [name for name in LINEAR_ONLY if getattr(given, name) != parser.get_default(name)]
    if changed and not given.linear:
        parser.error(f"settings of --linear: {', '.join(changed)}")
    torch.set_num_threads(1)  # the same numbers on every machine
    speech = read_speech(given.data)
    name = describe(given)
    folder = given.output / name
    if not (given.linear or given.frozen):
        measure(open_layers(given.base, speech, given.output).predict, speech, folder)
        report(folder, speech, name)
        return
    model = build_network(given.base)
    num_copies = given.copies if given.linear else NUM_COPIES
    copies = encode_speech(model, speech, given.output / FRAMES, num_copies=num_copies)
    if given.linear:
        shares = {**SHARES, "cremad": given.cremad_share}
        config = HeadConfig(given.ridge, given.deviation_scale, given.speaker_scale, shares)
        features = torch.stack([copy.pool() for copy in copies])
        measure(LinearHeads(features, features[0], speech, config).predict, speech, folder)
    else:
        heads = FrameHeads(copies, copies[0], speech, given.output / SMALL / HEADS)
        measure(heads.predict, speech, folder)
    report(folder, speech, name)


def report(folder: Path, speech: list[Utterance], name: str) -> None:
    """Print the table of results, the targets and the calibration."""
    print("\n".join(tabulate_small(folder, speech, name)))
    print(compare_targets(folder, speech))
    temperature, error = calibrate(folder, speech)
    print(f"temperature {temperature:.2f}; calibration error of unseen speakers {error:.3f}")


def describe(given: argparse.Namespace) -> str:
    """Name of a recipe by its settings."""
    if not given.linear:
        return f"{SMALL}, frozen" if given.frozen else SMALL
    return (
        f"linear, copies {given.copies}, ridge {given.ridge:g}, "
        f"deviations {given.deviation_scale:g}, speakers {given.speaker_scale:g}, "
        f"CREMA-D {given.cremad_share:g}"
    )


if __name__ == "__main__":
    main()
