"""Evaluate the recipe of emoser-tiny, and eGeMAPS with an SVM, on the same unseen speakers.

    python examples/bundled/measure.py folds --base openai/whisper-base --data PATH --output DIR
    python examples/bundled/measure.py cross --base openai/whisper-base --data PATH --output DIR
    python examples/bundled/measure.py table --data PATH --output DIR

`folds` trains five networks, each without the RAVDESS actors of a fold and without one or two
speakers of nEMO, and tests it on all of them, so that every speaker is tested once. `cross`
trains on one corpus and tests on the other, which is not used at all. CREMA-D's happy and sad clips
are part of every training set. The SVM is trained on the same speakers as each network, in `folds`
only on those of the tested corpus, where more of them lower its figures. No test speaker chooses
anything in a run: the last update is taken, and the temperature of a split is fitted on the other
splits. Settings were chosen with four of the folds and `cross` in sight.

All networks start from that of `pretrain.py` in DIR, which was not trained on the tested
speakers, and each has a teacher whose head is fitted to its own training speakers. Results stay in
DIR: run the same command again to resume, and `table` to print the results so far. `--part 0.1`
makes a tenth of the updates, which is another, weaker recipe: give it its own DIR.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import egemaps_svm
import numpy as np
import torch
from network import ALL_LABELS, LABELS, SEED
from numpy.typing import NDArray
from pretrain import PRETRAINED
from recipe import RECIPE, load_teacher, read_network, read_speech, train_network

from emoser.finetune import Utterance
from emoser.finetune.data.recordings import Recordings
from emoser.finetune.scoring.calibration import fit_temperature
from emoser.finetune.scoring.logits import predict_logits
from emoser.finetune.scoring.report import Evaluation, assess
from emoser.metrics import expected_calibration_error, unweighted_average_recall

NUM_FOLDS = 5
TINY, SVM = "emoser-tiny", "eGeMAPS + SVM"

Logits = NDArray[np.float32]


@dataclass(frozen=True)
class Split:
    """Training and test set, without common speakers."""

    name: str
    training: list[Utterance]
    test: list[Utterance]


def split_folds(speech: list[Utterance]) -> list[Split]:
    """Test fold k: the actors whose number minus 1 is k modulo 5, and every fifth of nEMO."""
    names = sorted({item.speaker or "" for item in speech if item.corpus == "nemo"})
    folds = {("nemo", name): index % NUM_FOLDS for index, name in enumerate(names)}
    for item in speech:
        if item.corpus == "ravdess":
            folds["ravdess", item.speaker or ""] = (int(item.speaker or "") - 1) % NUM_FOLDS
    splits = []
    for fold in range(NUM_FOLDS):
        tested = {voice for voice, number in folds.items() if number == fold}
        training = [item for item in speech if item.voice not in tested]
        test = [item for item in speech if item.voice in tested]
        splits.append(Split(f"fold {fold}", training, test))
    return splits


def split_corpora(speech: list[Utterance]) -> list[Split]:
    """RAVDESS without nEMO's labels, tested on nEMO, and the other way round."""
    return [
        Split(
            f"{learned} to {tested}",
            [item for item in speech if item.corpus != tested],
            [item for item in speech if item.corpus == tested],
        )
        for learned, tested in (("ravdess", "nemo"), ("nemo", "ravdess"))
    ]


PLANS = {"folds": split_folds, "cross": split_corpora}


@dataclass(frozen=True)
class Row:
    """A row of the table of goals.

    Attributes:
        title: First cell of the row.
        plan: The plan of the networks.
        splits: The splits of the plan.
        corpus: The scored corpus.
        labels: The scored labels.
        by_speaker: Whether the mean is over speakers instead of splits.
    """

    title: str
    plan: str
    splits: slice
    corpus: str
    labels: tuple[str, ...] = LABELS
    by_speaker: bool = False


EVERY = slice(None)
ROWS = (
    Row("RAVDESS, 4 classes, 5 folds", "folds", EVERY, "ravdess"),
    Row("RAVDESS, 8 classes, 5 folds", "folds", EVERY, "ravdess", ALL_LABELS),
    Row("nEMO, 4 classes, mean of 9 speakers", "folds", EVERY, "nemo", by_speaker=True),
    Row("RAVDESS to nEMO, 4 classes", "cross", slice(0, 1), "nemo"),
    Row("nEMO to RAVDESS, 4 classes", "cross", slice(1, 2), "ravdess"),
)


def measure_network(plan: str, splits: Sequence[Split], arguments: argparse.Namespace) -> None:
    """Train and store the missing networks of a plan."""
    teacher = None
    num_clips = round(RECIPE.data.epoch_clips * arguments.part)
    for seed in arguments.seeds:
        for place, split in enumerate(splits):
            file = arguments.output / plan / f"{TINY}-{seed}" / f"{split.name}.npz"
            if file.is_file() or place not in (arguments.only or range(len(splits))):
                continue
            weights = arguments.output / "runs" / plan / f"{split.name}-{seed}.pt"
            if not weights.is_file():
                teacher = teacher or load_teacher(arguments.data, arguments.base, arguments.output)
                train_network(
                    split.training,
                    teacher,
                    weights,
                    config=RECIPE.replace(epoch_clips=num_clips, seed=seed),
                    start=arguments.output / PRETRAINED,
                )
            store(file, predict_logits(read_network(weights), Recordings(split.test)), ALL_LABELS)


def measure_svm(plan: str, splits: Sequence[Split], arguments: argparse.Namespace) -> None:
    """Compute and store the missing results of a plan, if openSMILE is installed."""
    train_svms([row for row in ROWS if row.plan == plan], splits, arguments.output)


def train_svms(rows: Sequence[Row], splits: Sequence[Split], output: Path) -> None:
    """Compute and store the missing results of rows, if openSMILE is installed."""
    if not egemaps_svm.has_opensmile():
        print("eGeMAPS + SVM is left out: it needs `pip install opensmile`")
        return
    for row in rows:
        for split in splits[row.splits]:
            file = svm_folder(row, output) / f"{split.name}.npz"
            if file.is_file():
                continue
            alone = [item for item in split.training if item.corpus == row.corpus]
            others = [item for item in split.training if item.corpus != "cremad"]
            clips = (alone or others) + split.test
            features = egemaps_svm.describe(clips, output / "egemaps.npz")
            predicted = egemaps_svm.recognise(alone or others, split.test, features, row.labels)
            store(file, predicted, row.labels)


def svm_folder(row: Row, output: Path) -> Path:
    """The folder of the SVM's predictions for a row."""
    return output / row.plan / f"{SVM} {row.corpus} {len(row.labels)}"


def store(file: Path, logits: Logits, labels: Sequence[str]) -> None:
    """Write the logits of the test recordings of a split, as a whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name("unfinished.npz")
    np.savez(temporary, logits=logits, labels=np.array(labels))
    temporary.replace(file)


def recall(
    folder: Path, splits: Sequence[Split], corpora: Sequence[str], labels: Sequence[str]
) -> list[tuple[Logits, list[Utterance]]]:
    """The stored logits of each split, for the recordings of some corpora and for some labels."""
    found = []
    for split in splits:
        file = folder / f"{split.name}.npz"
        if file.is_file():
            with np.load(file) as stored:
                columns = [stored["labels"].tolist().index(label) for label in labels]
                rows = [
                    row
                    for row, item in enumerate(split.test)
                    if item.label in labels and item.corpus in corpora
                ]
                logits = stored["logits"][np.ix_(rows, columns)]
            found.append((logits, [split.test[row] for row in rows]))
    return found


def index_labels(utterances: Sequence[Utterance], labels: Sequence[str]) -> NDArray[np.int64]:
    """The class of each utterance, (N,)."""
    return np.array([labels.index(item.label) for item in utterances])


def cross_calibrate(parts: Sequence[Logits], truths: Sequence[NDArray[np.int64]]) -> float:
    """Calibration error of all parts together, each with the temperature of the others.

    Args:
        parts: Logits (N, C) of groups that share no speaker.
        truths: The classes of each group, (N,).
    """
    probabilities = []
    for index, logits in enumerate(parts):
        others = [place for place in range(len(parts)) if place != index]
        temperature = fit_temperature(
            np.concatenate([parts[place] for place in others]),
            np.concatenate([truths[place] for place in others]),
        )
        powers = np.exp((logits - logits.max(axis=1, keepdims=True)) / temperature)
        probabilities.append(powers / powers.sum(axis=1, keepdims=True))
    return expected_calibration_error(np.concatenate(truths), np.concatenate(probabilities))


@dataclass(frozen=True)
class Score:
    """One method with one seed on the recordings of a row.

    Attributes:
        uar: Mean over the splits or speakers with results.
        evaluation: Of all recordings together, with intervals over speakers.
        calibration_error: With the temperature of the other splits; None with one split.
        num_splits: Number of splits with results.
    """

    uar: float
    evaluation: Evaluation
    calibration_error: float | None
    num_splits: int


def score(folder: Path, row: Row, splits: Sequence[Split]) -> Score | None:
    """Figures of the results in a folder, None if there are none."""
    found = recall(folder, splits[row.splits], (row.corpus,), row.labels)
    if not found:
        return None
    logits = np.concatenate([part for part, _ in found])
    test = [item for _, items in found for item in items]
    truth = index_labels(test, row.labels)
    units = [number for number, (_, items) in enumerate(found) for _ in items]
    if row.by_speaker:
        units = [item.speaker for item in test]
    uars = [
        unweighted_average_recall(truth[mine], logits[mine].argmax(axis=1))
        for mine in (np.array([unit == one for unit in units]) for one in sorted(set(units)))
    ]
    error = None
    if len(found) > 1:
        truths = [index_labels(items, row.labels) for _, items in found]
        error = cross_calibrate([part for part, _ in found], truths)
    evaluation = assess(logits, test, row.labels, protocol="unseen speakers")
    return Score(float(np.mean(uars)), evaluation, error, len(found))


def tabulate(output: Path, speech: list[Utterance]) -> Iterator[str]:
    """Lines of the table of results in Markdown."""
    yield "| row | method | seeds | splits | UAR | deviation | 95 % over speakers | ECE |"
    yield "|---|---|---|---|---|---|---|---|"
    for row in ROWS:
        splits = PLANS[row.plan](speech)
        networks = sorted((output / row.plan).glob(f"{TINY}-*"))
        for method, places in {TINY: networks, SVM: [svm_folder(row, output)]}.items():
            found = [item for item in (score(one, row, splits) for one in places) if item]
            if found:
                yield write_line(row.title, method, found, len(splits[row.splits]))


def write_line(name: str, method: str, scores: Sequence[Score], num_splits: int) -> str:
    """One line of the table: mean and deviation over the seeds."""
    uars = [item.uar for item in scores]
    low, high = np.mean([item.evaluation.uar_interval for item in scores], axis=0)
    errors = [item.calibration_error for item in scores if item.calibration_error is not None]
    calibrated = method != SVM and errors
    cells = (
        name,
        method,
        str(len(scores)),
        f"{min(item.num_splits for item in scores)} of {num_splits}",
        f"{np.mean(uars):.3f}",
        f"{np.std(uars, ddof=1):.3f}" if len(uars) > 1 else "-",
        f"{low:.3f} to {high:.3f}",
        f"{np.mean(errors):.3f}" if calibrated else "-",
    )
    return f"| {' | '.join(cells)} |"


METHODS = {"svm": measure_svm, "network": measure_network}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=[*PLANS, "table"])
    parser.add_argument("--base", default="openai/whisper-base", help="Hub id or folder")
    parser.add_argument("--data", type=Path, required=True, help="folder of manifest.csv")
    parser.add_argument("--output", type=Path, required=True, help="folder of the results")
    parser.add_argument("--method", nargs="+", choices=list(METHODS), default=["svm", "network"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[SEED])
    parser.add_argument("--part", type=float, default=1.0, help="part of the recipe's updates")
    parser.add_argument("--only", nargs="+", type=int, help="splits of networks; 0 is the first")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    speech = read_speech(arguments.data)
    if arguments.what in PLANS:
        splits = PLANS[arguments.what](speech)
        for method in arguments.method:
            METHODS[method](arguments.what, splits, arguments)
    print("\n".join(tabulate(arguments.output, speech)))


if __name__ == "__main__":
    main()
