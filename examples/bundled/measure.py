"""Measure the recipe of emoser-tiny, and eGeMAPS with an SVM, on the same unseen speakers.

    python examples/measure_emoser_tiny.py ravdess --data PATH --output DIR
    python examples/measure_emoser_tiny.py nemo --data PATH --output DIR
    python examples/measure_emoser_tiny.py cross --data PATH --output DIR
    python examples/measure_emoser_tiny.py speed --data PATH --output DIR
    python examples/measure_emoser_tiny.py table --data PATH --output DIR

`ravdess` tests five folds of actors, four and eight classes, with the other corpora beside the
training actors; `nemo` leaves one speaker out; `cross` trains on one corpus and tests on the
other, whose emotion labels are not used. Each trains the whole recipe of `train_emoser_tiny.py`
once per split and seed (`--seeds`) and trains the SVM beside it. No test speaker chooses
anything: the last epoch is taken, and the temperature of a split is fitted on the other splits.

What is measured stays in DIR: the same command goes on where it was stopped, and `table` prints
what there is. `--part 0.1` trains a tenth of the epochs, which is another, weaker recipe: give
it a DIR of its own.
"""

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import egemaps_svm
import numpy as np
import torch
from numpy.typing import NDArray
from train_emoser_tiny import (
    ALL_LABELS,
    LABELS,
    STAGES,
    cross_calibrate,
    index_labels,
    train_stages,
)

from emoser import EmotionClassifier
from emoser.finetune import FinetuneConfig, Utterance, read_corpus
from emoser.finetune.evaluation import predict_logits
from emoser.finetune.protocols import drop_duplicates
from emoser.finetune.recordings import Recordings
from emoser.finetune.report import assess
from emoser.metrics import unweighted_average_recall

NUM_FOLDS = 5
SEEDS = (20, 21, 22)
NETWORK, SVM = "network", "eGeMAPS + SVM"
SPEED_CLIPS, SPEED_ROUNDS = 60, 3

Logits = NDArray[np.float32]


@dataclass(frozen=True)
class Split:
    """Who is learned from and who is tested; the speakers of the two differ.

    Attributes:
        name: Which one.
        training: For the network.
        single: For the SVM: no corpus beside the one that the row is about, since more of them
            lower its figures.
        test: What is scored once.
    """

    name: str
    training: list[Utterance]
    single: list[Utterance]
    test: list[Utterance]


def read_speech(data: Path) -> list[Utterance]:
    """All labelled recordings that the recipe trains on, without copies."""
    restricted = STAGES[0].restricted_labels
    utterances = [
        item
        for item in read_corpus(data / "manifest.csv")
        if item.label in restricted.get(item.corpus or "", ALL_LABELS)
    ]
    return drop_duplicates(utterances)[0]


def split_voices(
    name: str, speech: list[Utterance], corpus: str, tested: Callable[[str], bool]
) -> Split:
    """Test some speakers of a corpus, with all other corpora beside its other speakers."""
    test = [item for item in speech if item.corpus == corpus and tested(item.speaker or "")]
    voices = {item.voice for item in test}
    training = [item for item in speech if item.voice not in voices]
    return Split(name, training, [item for item in training if item.corpus == corpus], test)


def split_ravdess(speech: list[Utterance]) -> list[Split]:
    """Test fold k: the actors whose number minus 1 is k modulo 5."""
    return [
        split_voices(
            f"fold {fold}", speech, "ravdess", lambda name, k=fold: (int(name) - 1) % NUM_FOLDS == k
        )
        for fold in range(NUM_FOLDS)
    ]


def split_nemo(speech: list[Utterance]) -> list[Split]:
    """Test each speaker of nEMO."""
    names = sorted({item.speaker or "" for item in speech if item.corpus == "nemo"})
    return [split_voices(name, speech, "nemo", lambda who, one=name: who == one) for name in names]


def split_corpora(speech: list[Utterance]) -> list[Split]:
    """RAVDESS without nEMO's labels, tested on nEMO, and the other way round."""
    splits = []
    for learned, tested in (("ravdess", "nemo"), ("nemo", "ravdess")):
        training = [item for item in speech if item.corpus != tested]
        single = [item for item in speech if item.corpus == learned]
        test = [item for item in speech if item.corpus == tested]
        splits.append(Split(f"{learned} to {tested}", training, single, test))
    return splits


@dataclass(frozen=True)
class Row:
    """A row of the table of goals.

    Attributes:
        build: Makes its splits.
        label_sets: The sets of labels that are decided between.
        together: Whether the splits are one figure, or one each.
    """

    build: Callable[[list[Utterance]], list[Split]]
    label_sets: tuple[tuple[str, ...], ...] = (LABELS,)
    together: bool = True


ROWS = {
    "ravdess": Row(split_ravdess, (LABELS, ALL_LABELS)),
    "nemo": Row(split_nemo),
    "cross": Row(split_corpora, together=False),
}


def run_network(split: Split, folder: Path, *, seed: int, part: float) -> Logits:
    """Train the recipe on a split; logits of its test recordings, (N, all labels)."""
    corpora = {item.corpus or "" for item in split.training}
    stages = [fit_config(config, corpora, seed=seed, part=part) for config in STAGES]
    model, _ = train_stages(split.training, split.test, folder, stages=stages)
    return predict_logits(model, Recordings(split.test))


def fit_config(
    config: FinetuneConfig, corpora: set[str], *, seed: int, part: float
) -> FinetuneConfig:
    """A stage for these corpora and this seed, which takes the last epoch."""
    return replace(
        config,
        epochs=max(round(config.epochs * part), 1),
        corpus_weights={k: v for k, v in config.corpus_weights.items() if k in corpora},
        restricted_labels={k: v for k, v in config.restricted_labels.items() if k in corpora},
        evaluation_labels=ALL_LABELS,
        selection="last",
        seed=100 * seed + config.seed,
    )


def measure_network(row: str, splits: Sequence[Split], arguments: argparse.Namespace) -> None:
    """Train and store what is missing of a row."""
    for seed in arguments.seeds:
        for split in splits:
            file = arguments.output / row / f"{NETWORK}-{seed}" / f"{split.name}.npz"
            if not file.is_file():
                folder = arguments.output / "runs" / row / f"{split.name}-{seed}"
                logits = run_network(split, folder, seed=seed, part=arguments.part)
                store(file, logits, ALL_LABELS)


def measure_svm(row: str, splits: Sequence[Split], arguments: argparse.Namespace) -> None:
    """Compute and store what is missing of a row; says so when openSMILE is missing."""
    if not egemaps_svm.has_opensmile():
        print("eGeMAPS + SVM is left out: it needs `pip install opensmile`")
        return
    for split in splits:
        for labels in ROWS[row].label_sets:
            file = arguments.output / row / svm_name(labels) / f"{split.name}.npz"
            if not file.is_file():
                clips = split.single + split.test
                features = egemaps_svm.describe(clips, arguments.output / "egemaps.npz")
                said = egemaps_svm.recognise(split.single, split.test, features, labels)
                store(file, said, labels)


def svm_name(labels: Sequence[str]) -> str:
    """Folder of the SVM between so many labels."""
    return f"{SVM} {len(labels)}"


def store(file: Path, logits: Logits, labels: Sequence[str]) -> None:
    """Write what was said of the test recordings of a split, at once or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name("unfinished.npz")
    np.savez(temporary, logits=logits, labels=np.array(labels))
    temporary.replace(file)


def recall(
    folder: Path, splits: Sequence[Split], labels: Sequence[str]
) -> list[tuple[Logits, list[Utterance]]]:
    """What was stored of each split, cut to the recordings and columns of the labels."""
    found = []
    for split in splits:
        file = folder / f"{split.name}.npz"
        if file.is_file():
            with np.load(file) as stored:
                columns = [stored["labels"].tolist().index(label) for label in labels]
                rows = [row for row, item in enumerate(split.test) if item.label in labels]
                logits = stored["logits"][np.ix_(rows, columns)]
            found.append((logits, [split.test[row] for row in rows]))
    return found


@dataclass(frozen=True)
class Score:
    """One method with one seed on the splits of a row.

    Attributes:
        uar: Averaged over the splits that were measured.
        interval: 95 % over speakers, of all recordings together.
        calibration_error: With the temperature of the other splits; None with one split.
        num_splits: How many were measured.
    """

    uar: float
    interval: tuple[float, float]
    calibration_error: float | None
    num_splits: int


def score(
    folder: Path, splits: Sequence[Split], labels: Sequence[str], *, calibrated: bool
) -> Score | None:
    """Figures of what a folder holds, None when it holds nothing."""
    found = recall(folder, splits, labels)
    if not found:
        return None
    truths = [index_labels(test, labels) for _, test in found]
    uars = [
        unweighted_average_recall(truth, logits.argmax(axis=1))
        for truth, (logits, _) in zip(truths, found, strict=True)
    ]
    pooled = assess(
        np.concatenate([logits for logits, _ in found]),
        [item for _, test in found for item in test],
        labels,
        protocol="unseen speakers",
    )
    error = None
    if calibrated and len(found) > 1:
        error = cross_calibrate([logits for logits, _ in found], truths)
    return Score(float(np.mean(uars)), pooled.uar_interval, error, len(found))


def tabulate(name: str, output: Path, speech: list[Utterance]) -> Iterator[str]:
    """Lines of the table for a row: what was measured, and of how many splits."""
    row, folder = ROWS[name], output / name
    splits = row.build(speech)
    seeds = sorted(folder.glob(f"{NETWORK}-*"))
    for group in [splits] if row.together else [[split] for split in splits]:
        title = name if row.together else group[0].name
        for labels in row.label_sets:
            network = [score(place, group, labels, calibrated=True) for place in seeds]
            svm = [score(folder / svm_name(labels), group, labels, calibrated=False)]
            for method, scores in ((NETWORK, network), (SVM, svm)):
                found = [item for item in scores if item is not None]
                if found:
                    yield write_line(f"{title}, {len(labels)} classes", method, found, len(group))


def write_line(name: str, method: str, scores: Sequence[Score], num_splits: int) -> str:
    """One line of the table: mean and deviation over the seeds."""
    uars = [item.uar for item in scores]
    low, high = np.mean([item.interval for item in scores], axis=0)
    errors = [item.calibration_error for item in scores if item.calibration_error is not None]
    cells = (
        name,
        method,
        str(len(scores)),
        f"{min(item.num_splits for item in scores)} of {num_splits}",
        f"{np.mean(uars):.3f}",
        f"{np.std(uars, ddof=1):.3f}" if len(uars) > 1 else "-",
        f"{low:.3f} to {high:.3f}",
        f"{np.mean(errors):.3f}" if errors else "-",
    )
    return f"| {' | '.join(cells)} |"


METHODS = {"svm": measure_svm, "network": measure_network}


def measure_speed(arguments: argparse.Namespace) -> None:
    """Size on disk, and seconds of audio per second, of the bundled checkpoint on this machine."""
    classifier = EmotionClassifier.from_pretrained(device="cpu", dtype="float32")
    speech = [item for item in read_speech(arguments.data) if item.corpus == "ravdess"]
    chosen = speech[:: len(speech) // SPEED_CLIPS]
    clips = [Recordings([item])[0] for item in chosen]
    seconds = sum(map(len, clips)) / egemaps_svm.SAMPLING_RATE
    rates = []
    for _ in range(SPEED_ROUNDS):
        began = time.perf_counter()
        classifier.predict_batch(clips, sampling_rate=egemaps_svm.SAMPLING_RATE)
        rates.append(seconds / (time.perf_counter() - began))
    size = sum(file.stat().st_size for file in Path(classifier.info.path).glob("*.safetensors"))
    print(f"weights: {size / 1e6:.1f} MB")
    print(
        f"{len(clips)} clips of {seconds / len(clips):.1f} s, decoded before: "
        f"{max(rates):.0f} times real time (best of {SPEED_ROUNDS}), "
        f"{torch.get_num_threads()} threads, {classifier.info.backend}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("row", choices=[*ROWS, "speed", "table"])
    parser.add_argument("--data", type=Path, required=True, help="folder of manifest.csv")
    parser.add_argument("--output", type=Path, required=True, help="what is measured stays here")
    parser.add_argument("--method", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--part", type=float, default=1.0, help="part of the recipe's epochs")
    arguments = parser.parse_args()
    if arguments.row == "speed":
        measure_speed(arguments)
        return
    speech = read_speech(arguments.data)
    rows = tuple(ROWS) if arguments.row == "table" else (arguments.row,)
    if arguments.row != "table":
        splits = ROWS[arguments.row].build(speech)
        for method in arguments.method:
            METHODS[method](arguments.row, splits, arguments)
    print("| row | method | seeds | splits | UAR | deviation | 95 % over speakers | ECE |")
    print("|---|---|---|---|---|---|---|---|")
    for name in rows:
        for line in tabulate(name, arguments.output, speech):
            print(line)


if __name__ == "__main__":
    main()
