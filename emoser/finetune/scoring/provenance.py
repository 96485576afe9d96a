"""Provenance of a checkpoint: the block `training` of `config.json`, which its card shows."""

import platform
from collections import Counter
from contextlib import suppress
from importlib import metadata
from typing import Any

from emoser._version import __version__
from emoser.checkpoints.files import CheckpointFiles
from emoser.checkpoints.licences import inherit_licence
from emoser.finetune.config import FinetuneConfig
from emoser.finetune.data.utterance import Utterance
from emoser.finetune.protocols import Split
from emoser.finetune.scoring.figures import NOT_SCORED
from emoser.finetune.scoring.leakage import OWN
from emoser.finetune.scoring.report import Evaluation

PACKAGES = ("torch", "transformers", "accelerate")


def describe_training(
    config: FinetuneConfig, split: Split, evaluation: Evaluation, *, base: CheckpointFiles
) -> dict[str, Any]:
    """The data, settings, versions and results of a training run, ready for JSON."""
    report, licence = evaluation.report, inherit_licence(base)
    labels = report.labels
    counts = Counter(label for item in split.training for label in item.answers)
    return {
        "protocol": evaluation.protocol,
        "base": config.base,
        "base_licence": base.licence,
        **({} if licence is None else {"licence": licence}),
        "mode": config.model.mode,
        **({"uar": report.uar, "accuracy": report.accuracy} if labels else {}),
        "evaluations": [describe_evaluation(evaluation, split.test)],
        "clips": {label: counts[label] for label in labels} or {"annotated": len(split.training)},
        "settings": config.flat(),
        "environment": describe_environment(),
    }


def describe_evaluation(evaluation: Evaluation, tested: tuple[Utterance, ...]) -> dict[str, Any]:
    """An evaluation with its data sets, ready for JSON."""
    values = {key: value for key, value in evaluation.report.to_dict().items() if value != {}}
    intervals: dict[str, Any] = {
        "accuracy_interval": list(evaluation.accuracy_interval),
        "uar_interval": list(evaluation.uar_interval),
    }
    if not evaluation.report.labels:
        values, intervals = _without_labels(values), {}
    if evaluation.dimension_intervals:
        intervals |= {"dimension_intervals": evaluation.dimension_intervals}
    corpora = sorted({item.corpus for item in tested if item.corpus})
    return {
        "dataset": " + ".join(corpora) or OWN,
        "protocol": evaluation.protocol,
        **values,
        **intervals,
        "notes": list(evaluation.notes),
    }


def _without_labels(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in ("labels", *NOT_SCORED)}


def describe_environment() -> dict[str, str]:
    """Versions of emoser, Python and the packages of the training."""
    versions = {"emoser": __version__, "Python": platform.python_version()}
    for name in PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions
