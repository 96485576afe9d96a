"""Whole experiments: every split of a protocol is trained and tested once, and summed up.

Each fold has a folder of its own and its result on disk when it is done, so that an experiment
can be stopped and started again at any moment. Knows nothing of how a fold is trained.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emoser.checkpoints.save import save_model
from emoser.errors import CheckpointError
from emoser.finetune.config import FinetuneConfig
from emoser.finetune.data.recordings import Recordings
from emoser.finetune.data.utterance import Utterance
from emoser.finetune.experiments.start import build_start
from emoser.finetune.protocols import Split, build_splits
from emoser.finetune.scoring.evaluation import predict_logits
from emoser.finetune.scoring.leakage import describe_contact
from emoser.finetune.scoring.provenance import describe_training
from emoser.finetune.scoring.report import Evaluation, assess, write_report
from emoser.finetune.training.distributed import Processes
from emoser.finetune.training.freezing import merge_lora
from emoser.finetune.training.resume import STATES
from emoser.finetune.training.run import BEST, train
from emoser.labels import CANONICAL_LABELS

RESULT = "result.json"
SUMMARY, TABLE = "summary.json", "summary.md"


@dataclass(frozen=True)
class FoldResult:
    """What came out of one split.

    Attributes:
        name: Which one.
        seed: Of model and, in the speaker-dependent protocol, of the split.
        num_training: Clips that were learned from.
        num_test: Clips that were tested, once.
        best_epoch: The epoch that the validation set chose.
        accuracy: On the test set.
        uar: On the test set.
        macro_f1: On the test set.
        shared_sentences: Part of the test clips whose text was also trained on, where known.
    """

    name: str
    seed: int
    num_training: int
    num_test: int
    best_epoch: int
    accuracy: float
    uar: float
    macro_f1: float
    shared_sentences: float | None


@dataclass(frozen=True)
class ExperimentResult:
    """What came out of all splits.

    Attributes:
        protocol: The sentence that belongs beside every figure.
        folds: One result per split.
        pooled: The figures of all test clips together, with intervals over speakers.
    """

    protocol: str
    folds: tuple[FoldResult, ...]
    pooled: Evaluation

    def mean(self, figure: str) -> float:
        """A figure ("accuracy", "uar", "macro_f1") averaged over the splits."""
        return float(np.mean([getattr(fold, figure) for fold in self.folds]))

    def deviation(self, figure: str) -> float:
        """Its sample standard deviation over the splits; 0 for a single one."""
        values = [getattr(fold, figure) for fold in self.folds]
        return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        names = ("accuracy", "uar", "macro_f1")
        summed = {name: [self.mean(name), self.deviation(name)] for name in names}
        return {**asdict(self), "mean_and_deviation": summed}


def cross_validate(
    utterances: Sequence[Utterance],
    *,
    config: FinetuneConfig,
    setting: str,
    output: str | Path,
    num_seeds: int = 5,
    num_folds: int = 5,
    device: str = "auto",
) -> ExperimentResult:
    """Train and test a recipe on every split of a protocol, or continue doing so.

    Args:
        utterances: The whole corpus, without duplicates.
        config: The recipe; `config.base` is the encoder that every fold begins with.
        setting: "si", "sd", "sessions", "superb", "speakers" or "groups"; see
            `protocols.build_splits`.
        output: Folder of the experiment: a folder per fold, `summary.json`, `summary.md`,
            `report.md` and the confusion as a picture.
        num_seeds: Of "sd".
        num_folds: Of "groups".
        device: "auto", "cpu" or "cuda".

    Raises:
        ValueError: If the corpus does not fit the protocol, or a split leaks.
        CheckpointError: If the folder holds another experiment.

    Example:
        >>> import tempfile
        >>> calls = [  # thirty pieces of one recording stand in for as many calls
        ...     Utterance(
        ...         "examples/audio/slow.ogg",
        ...         ("sad", "happy")[number % 2],
        ...         speaker=str(number // 10),
        ...         start=number / 10,
        ...         end=number / 10 + 1,
        ...     )
        ...     for number in range(30)
        ... ]
        >>> config = FinetuneConfig("emoser-tiny", mode="frozen", epochs=1, masking=False)
        >>> with tempfile.TemporaryDirectory() as place:
        ...     result = cross_validate(calls, config=config, setting="speakers", output=place)
        >>> [fold.name for fold in result.folds]
        ['speaker 0', 'speaker 1', 'speaker 2']
    """
    folder = Path(output)
    labels = order_labels(utterances)
    splits = build_splits(
        utterances, setting, seed=config.run.seed, num_seeds=num_seeds, num_folds=num_folds
    )
    done = [_run_split(split, config, labels, folder, device) for split in splits]
    tested = [item for split in splits for item in split.test]
    notes = [f"all {len(splits)} splits together; means over the splits are in {TABLE}"]
    pooled = assess(
        np.concatenate([logits for _, logits in done]),
        tested,
        labels,
        protocol=splits[0].protocol,
        notes=[*notes, *(describe_contact(config.base, tested) if setting != "sd" else [])],
    )
    result = ExperimentResult(splits[0].protocol, tuple(fold for fold, _ in done), pooled)
    Processes(device).write(lambda: _write_summary(result, folder))
    return result


def order_labels(utterances: Sequence[Utterance]) -> tuple[str, ...]:
    """The labels of utterances, canonical ones first and in their order.

    Example:
        >>> order_labels([Utterance("a", "sad"), Utterance("b", "bored"), Utterance("c", "happy")])
        ('happy', 'sad', 'bored')
    """
    found = {item.label for item in utterances}
    known = [label for label in CANONICAL_LABELS if label in found]
    return (*known, *sorted(found - set(known)))


def describe_folds(
    result: ExperimentResult, *, title: str = "Experiment", beside: Sequence[str] = ()
) -> str:
    """The splits as a Markdown table, with mean and deviation.

    Args:
        result: What came out.
        title: Its heading.
        beside: Lines about what others report.
    """
    lines = [f"# {title}", "", f"Protocol: {result.protocol}.", "", *beside]
    lines += [""] * bool(beside)
    lines += [
        "| split | training | test | best epoch | accuracy (WA) | UAR (UA) | macro F1 |",
        "|---|---|---|---|---|---|---|",
    ]
    for fold in result.folds:
        figures = " | ".join(f"{100 * v:.2f}" for v in (fold.accuracy, fold.uar, fold.macro_f1))
        lines.append(
            f"| {fold.name} | {fold.num_training} | {fold.num_test} | {fold.best_epoch} | "
            f"{figures} |"
        )
    sums = " | ".join(
        f"{100 * result.mean(name):.2f} ± {100 * result.deviation(name):.2f}"
        for name in ("accuracy", "uar", "macro_f1")
    )
    lines.append(f"| mean ± deviation | | | | {sums} |")
    shared = [fold.shared_sentences for fold in result.folds if fold.shared_sentences is not None]
    if shared:
        part = 100 * float(np.mean(shared))
        lines += ["", f"{part:.0f} % of the test clips with a known text speak one trained on."]
    return "\n".join(lines) + "\n"


def _run_split(
    split: Split,
    config: FinetuneConfig,
    labels: tuple[str, ...],
    output: Path,
    device: str,
) -> tuple[FoldResult, NDArray[np.float32]]:
    """The result of a split, from the disk where it is done."""
    folder = output / split.name.replace(" ", "-").replace("/", "-")
    config = replace(config, seed=split.seed)
    name = _fingerprint(split, config, labels)
    done = _read_result(folder / RESULT, name)
    if done is not None:
        return done
    fold, logits = _train_and_test(split, config, labels, folder, device)
    values = {"fingerprint": name, "fold": asdict(fold), "logits": logits.tolist()}
    Processes(device).write(lambda: _write_result(values, folder))
    return fold, logits


def _train_and_test(
    split: Split, config: FinetuneConfig, labels: tuple[str, ...], folder: Path, device: str
) -> tuple[FoldResult, NDArray[np.float32]]:
    model = build_start(config, labels)
    trained = train(
        split.training,
        split.validation,
        model=model,
        config=config,
        output=folder,
        device=device,
        share_speakers=True,
    )
    logits = predict_logits(model, Recordings(split.test), device=Processes(device).device)
    evaluation = assess(logits, split.test, labels, protocol=split.protocol)
    report = evaluation.report
    model.config = replace(model.config, training=describe_training(config, split, evaluation))
    name = f"{folder.parent.name}-{folder.name}"
    Processes(device).write(
        lambda: save_model(merge_lora(model), folder / BEST, overwrite=True, name=name)
    )
    fold = FoldResult(
        split.name,
        split.seed,
        len(split.training),
        len(split.test),
        trained.best_epoch,
        report.accuracy,
        report.uar,
        report.macro_f1,
        split.shared_sentences,
    )
    return fold, logits


def _read_result(file: Path, name: str) -> tuple[FoldResult, NDArray[np.float32]] | None:
    if not file.is_file():
        return None
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        fold = FoldResult(**values["fold"])
        logits = np.array(values["logits"], dtype=np.float32)
        owner = values["fingerprint"]
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{file} is damaged ({error}); remove it") from error
    if owner != name:
        raise CheckpointError(f"{file} belongs to another experiment; choose another output folder")
    return fold, logits


def _fingerprint(split: Split, config: FinetuneConfig, labels: tuple[str, ...]) -> str:
    sides = [
        [[item.path, item.label, item.start, item.end] for item in side]
        for side in (split.training, split.validation, split.test)
    ]
    text = json.dumps([sides, split.protocol, config.identity(), labels], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _write_result(values: Mapping[str, Any], folder: Path) -> None:
    """Write the result of a split, and remove what only its training needed."""
    temporary = folder / f"{RESULT}.part"
    temporary.write_text(json.dumps(values), encoding="utf-8")
    temporary.replace(folder / RESULT)
    shutil.rmtree(folder / STATES, ignore_errors=True)
    for file in folder.glob("*.features"):
        file.unlink()


def _write_summary(result: ExperimentResult, folder: Path) -> None:
    write_report(result.pooled, folder, title="All splits together")
    text = json.dumps(result.to_dict(), indent=2) + "\n"
    (folder / SUMMARY).write_text(text, encoding="utf-8")
    (folder / TABLE).write_text(describe_folds(result), encoding="utf-8")
