"""Cross-validation: every split of a protocol is trained and tested once, and summarised.

Each fold has its own folder, and its result on disk when it is done, so that an experiment can be
interrupted and resumed at any time.
"""

import hashlib
import json
import math
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emoser.checkpoints.atomic import write_text
from emoser.errors import CheckpointError
from emoser.finetune.config import FinetuneConfig
from emoser.finetune.data.annotations import choose_targets, find_outputs
from emoser.finetune.data.utterance import Utterance
from emoser.finetune.experiments.split_run import SplitSetup, run_split
from emoser.finetune.experiments.start import (
    compare_base,
    find_base,
    fit_settings,
    open_recordings,
)
from emoser.finetune.protocols import Split, build_splits, drop_duplicates
from emoser.finetune.scoring.leakage import refuse_overlap
from emoser.finetune.scoring.report import (
    TRAINED_ON,
    Evaluation,
    assess,
    mark_trained_on,
    write_report,
)
from emoser.finetune.training.distributed import ProcessGroup, join_processes
from emoser.finetune.training.resume import STATES
from emoser.json_text import format_json, read_json
from emoser.text import counted, markdown_table

RESULT = "result.json"
MAX_RESULT_BYTES = 2**30  # the logits of a million recordings
SUMMARY, TABLE = "summary.json", "summary.md"
FIGURES = {"accuracy": "accuracy (WA)", "uar": "UAR (UA)", "macro_f1": "macro F1", "ccc": "CCC"}


@dataclass(frozen=True)
class FoldResult:
    """The result of one split.

    Attributes:
        name: Name of the split.
        seed: Seed of the model and, in the speaker-dependent protocol, of the split.
        num_training: Number of training clips.
        num_test: Number of test clips.
        best_epoch: The epoch that the validation set chose.
        accuracy: On the test set.
        uar: On the test set.
        macro_f1: On the test set. These three are NaN without labels.
        shared_sentences: Part of the test clips whose text is in the training set too; None if
            texts are not known.
        ccc: Mean concordance of the dimensions on the test set; NaN without any.
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
    ccc: float = math.nan


@dataclass(frozen=True)
class ExperimentResult:
    """The results of all splits.

    Attributes:
        protocol: The sentence that belongs beside every figure.
        folds: One result per split.
        pooled: The figures of all test clips together, with intervals over speakers.
    """

    protocol: str
    folds: tuple[FoldResult, ...]
    pooled: Evaluation

    @property
    def figures(self) -> dict[str, str]:
        """The figures that the splits have, and their names in tables."""
        report = self.pooled.report
        return {
            key: name
            for key, name in FIGURES.items()
            if (report.dimensions if key == "ccc" else report.labels)
        }

    def mean(self, figure: str) -> float:
        """Mean of a figure ("accuracy", "uar", "macro_f1", "ccc") over the splits."""
        return float(np.mean([getattr(fold, figure) for fold in self.folds]))

    def deviation(self, figure: str) -> float:
        """Sample standard deviation of a figure over the splits; 0 for a single split."""
        values = [getattr(fold, figure) for fold in self.folds]
        return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        summed = {name: [self.mean(name), self.deviation(name)] for name in self.figures}
        return {**asdict(self), "pooled": self.pooled.to_dict(), "mean_and_deviation": summed}


def cross_validate(  # noqa: PLR0913  # the public signature of the project
    utterances: Sequence[Utterance],
    *,
    config: FinetuneConfig,
    setting: str,
    output: str | Path,
    num_seeds: int = 5,
    num_folds: int = 5,
    device: str | ProcessGroup = "auto",
    skip_unreadable: bool = False,
    allow_trained_on: bool = False,
) -> ExperimentResult:
    """Train and test a recipe on every split of a protocol, or resume doing so.

    Args:
        utterances: The whole corpus; of duplicates one is kept.
        config: The recipe; `config.base` is the encoder that every fold starts with.
        setting: "si", "sd", "sessions", "superb", "speakers" or "groups"; see
            `protocols.build_splits`.
        output: Folder of the experiment: a folder per fold, `summary.json`, `summary.md`,
            `report.md` and the confusion matrix as a picture.
        num_seeds: Number of seeds of "sd".
        num_folds: Number of folds of "groups".
        device: "auto", "cpu" or "cuda"; or the processes that the caller has started.
        skip_unreadable: Whether to leave out recordings that are missing or cannot be decoded;
            the report names them.
        allow_trained_on: Whether the base may have been trained on tested recordings or, except
            in "sd", on tested speakers, as far as it states that; every report says so.

    Raises:
        ValueError: If the corpus does not fit the protocol, has one class only, or a split leaks.
        AudioError: Naming all recordings that cannot be read, unless they are left out.
        CheckpointError: If the folder holds another experiment.
        LeakageError: If the base was trained on some of the tested recordings or speakers, and
            that is not allowed.

    Example:
        >>> import tempfile
        >>> file, labels = "examples/audio/slow.ogg", ("sad", "happy")
        >>> calls = [  # thirty pieces of one recording stand in for as many calls
        ...     Utterance(file, labels[n % 2], speaker=str(n // 10), start=n / 10, end=n / 10 + 1)
        ...     for n in range(30)
        ... ]
        >>> config = FinetuneConfig("emoser-tiny", mode="frozen", epochs=1, masking=False)
        >>> with tempfile.TemporaryDirectory() as place:
        ...     result = cross_validate(calls, config=config, setting="speakers", output=place)
        >>> [fold.name for fold in result.folds]
        ['speaker 0', 'speaker 1', 'speaker 2']
    """
    folder, base = Path(output), find_base(config)
    config, recordings = fit_settings(config, base), open_recordings(base)
    readable, left_out = recordings.read(utterances, skip_unreadable=skip_unreadable)
    kept, dropped = drop_duplicates(choose_targets(readable, config.model.targets))
    outputs = find_outputs(kept)
    splits = build_splits(
        kept, setting, seed=config.run.seed, num_seeds=num_seeds, num_folds=num_folds
    )
    tested = [item for split in splits for item in split.test]
    overlap = compare_base(config, base, tested, speakers=setting != "sd")
    trained_on = refuse_overlap([overlap], allowed=allow_trained_on)
    setup = SplitSetup(config, base, outputs, join_processes(device), recordings)
    done = [_run_fold(split, setup, folder, count_speakers=setting != "sd") for split in splits]
    notes = [f"all {len(splits)} splits together; means over the splits are in {TABLE}", *left_out]
    notes += [f"{counted(len(dropped), 'duplicate')} left out"] if dropped else []
    pooled = assess(
        np.concatenate([logits for _, logits in done]),
        tested,
        outputs.outputs,
        protocol=splits[0].protocol,
        notes=notes,
        silent=recordings.select(tested).find_silent(),
    )
    pooled = mark_trained_on(pooled, trained_on)
    result = ExperimentResult(pooled.protocol, tuple(fold for fold, _ in done), pooled)
    setup.processes.write(lambda: _write_summary(result, folder))
    return result


def describe_folds(
    result: ExperimentResult, *, title: str = "Experiment", beside: Sequence[str] = ()
) -> str:
    """The splits as a Markdown table, with mean and deviation; `beside` are lines above it."""
    mark = TRAINED_ON * bool(result.pooled.report.trained_on)
    figures = result.figures
    rows = [
        ["split", "training", "test", "best epoch", *figures.values()],
        *(
            [fold.name, *map(str, (fold.num_training, fold.num_test, fold.best_epoch)),
             *(f"{100 * getattr(fold, name):.2f}{mark}" for name in figures)]
            for fold in result.folds
        ),
        ["mean ± deviation", "", "", "",
         *(f"{100 * result.mean(name):.2f} ± {100 * result.deviation(name):.2f}{mark}"
           for name in figures)],
    ]  # fmt: skip
    lines = [f"# {title}", "", f"Protocol: {result.protocol}.", "", *beside]
    lines += [*[""] * bool(beside), markdown_table(rows)]
    shared = [fold.shared_sentences for fold in result.folds if fold.shared_sentences is not None]
    if shared:
        part = 100 * float(np.mean(shared))
        lines += ["", f"{part:.0f} % of the test clips with a known text speak one trained on."]
    return "\n".join(lines) + "\n"


def _run_fold(
    split: Split, setup: SplitSetup, output: Path, *, count_speakers: bool
) -> tuple[FoldResult, NDArray[np.float32]]:
    """The result of a split, read from its folder if it is complete."""
    folder = output / split.name.replace(" ", "-").replace("/", "-")
    setup = replace(setup, config=setup.config.replace(seed=split.seed))
    fingerprint = _fingerprint(split, setup.config, setup.outputs.outputs)
    known = _read_result(folder / RESULT, fingerprint)
    if known is not None:
        return known
    name = f"{output.name}-{folder.name}"
    overlap = compare_base(setup.config, setup.base, split.test, speakers=count_speakers)
    done, logits = run_split(split, setup, folder, name=name, trained_on=str(overlap))
    report = done.evaluation.report
    fold = FoldResult(
        name=split.name,
        seed=split.seed,
        num_training=len(split.training),
        num_test=len(split.test),
        best_epoch=done.best_epoch,
        shared_sentences=split.shared_sentences,
        accuracy=report.accuracy,
        uar=report.uar,
        macro_f1=report.macro_f1,
        ccc=report.mean_ccc if report.dimensions else math.nan,
    )
    values = {"fingerprint": fingerprint, "fold": asdict(fold), "logits": logits.tolist()}
    setup.processes.write(lambda: _write_result(values, folder))
    return fold, logits


def _read_result(file: Path, name: str) -> tuple[FoldResult, NDArray[np.float32]] | None:
    if not file.is_file():
        return None
    try:
        values = read_json(file, dict, max_bytes=MAX_RESULT_BYTES)
        figures: dict[str, Any] = {
            name: math.nan if value is None and name in FIGURES else value
            for name, value in values["fold"].items()
        }
        fold = FoldResult(**figures)
        logits = np.array(values["logits"], dtype=np.float32)
        owner = values["fingerprint"]
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{file} is damaged ({error}); remove it") from error
    if owner != name:
        raise CheckpointError(f"{file} belongs to another experiment; choose another output folder")
    return fold, logits


def _fingerprint(split: Split, config: FinetuneConfig, outputs: tuple[str, ...]) -> str:
    sides = [
        [[item.path, _hash_file(item.path), item.truth, item.start, item.end] for item in side]
        for side in (split.training, split.validation, split.test)
    ]
    text = json.dumps([sides, split.protocol, config.identity(), outputs], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _hash_file(path: str) -> str:
    """The size and the hash of a recording, read once while it does not change."""
    stated = os.stat(path)
    return _hash_content(path, stated.st_size, stated.st_mtime_ns)


@cache
def _hash_content(path: str, size: int, changed: int) -> str:
    with open(path, "rb") as opened:
        return f"{size} {hashlib.file_digest(opened, 'sha256').hexdigest()}"


def _write_result(values: Mapping[str, Any], folder: Path) -> None:
    """Write the result of a split, and remove what only its training needs."""
    write_text(folder / RESULT, format_json(values))
    shutil.rmtree(folder / STATES, ignore_errors=True)
    for file in folder.glob("*.features"):
        file.unlink()


def _write_summary(result: ExperimentResult, folder: Path) -> None:
    write_report(result.pooled, folder, title="All splits together")
    text = format_json(result.to_dict(), indent=2) + "\n"
    write_text(folder / SUMMARY, text)
    write_text(folder / TABLE, describe_folds(result))
