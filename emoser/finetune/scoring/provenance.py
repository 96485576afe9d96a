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
from emoser.finetune.scoring.leakage import OWN
from emoser.finetune.scoring.report import Evaluation

PACKAGES = ("torch", "transformers", "accelerate")


def describe_training(
    config: FinetuneConfig, split: Split, evaluation: Evaluation, *, base: CheckpointFiles
) -> dict[str, Any]:
    """The data, settings, versions and results of a training run, ready for JSON."""
    labels, licence = evaluation.report.labels, inherit_licence(base)
    counts = Counter(item.label for item in split.training)
    return {
        "protocol": evaluation.protocol,
        "base": config.base,
        "base_licence": base.licence,
        **({} if licence is None else {"licence": licence}),
        "mode": config.model.mode,
        "uar": evaluation.report.uar,
        "accuracy": evaluation.report.accuracy,
        "evaluations": [describe_evaluation(evaluation, split.test)],
        "clips": {label: counts[label] for label in labels},
        "settings": config.flat(),
        "environment": describe_environment(),
    }


def describe_evaluation(evaluation: Evaluation, tested: tuple[Utterance, ...]) -> dict[str, Any]:
    """An evaluation with its data sets, ready for JSON."""
    values = evaluation.report.to_dict()
    corpora = sorted({item.corpus for item in tested if item.corpus})
    return {
        "dataset": " + ".join(corpora) or OWN,
        "protocol": evaluation.protocol,
        **values,
        "accuracy_interval": list(evaluation.accuracy_interval),
        "uar_interval": list(evaluation.uar_interval),
        "notes": list(evaluation.notes),
    }


def describe_environment() -> dict[str, str]:
    """Versions of emoser, Python and the packages of the training."""
    versions = {"emoser": __version__, "Python": platform.python_version()}
    for name in PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions
