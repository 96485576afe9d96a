"""`emoser evaluate`: score a checkpoint on labelled recordings."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from emoser.cli.finetune import CORPUS, TRAINED_ON, UNREADABLE, read_corpus, show_warnings
from emoser.cli.options import RUNTIME, flag, open_classifier, select, shared, show, value
from emoser.finetune.settings import AUTO
from emoser.json_text import format_json

if TYPE_CHECKING:
    from emoser.finetune import Utterance

DESCRIPTION = (
    "Score a checkpoint on labelled recordings; --against scores a second one on the same "
    "recordings and compares them."
)
OPTIONS = {
    **shared("model"),
    **CORPUS,
    **shared(*RUNTIME, "--labels"),
    **UNREADABLE,
    **TRAINED_ON,
    "--against": value("second model, for comparison", metavar="MODEL"),
    "--split": value("score only this part of the official split of the corpus, such as test"),
    "--protocol": value(
        "how the model and the recordings were chosen, in a sentence for the report (default: what "
        "the model states about its training)"
    ),
    "--only-known": flag("leave out recordings with labels that the model lacks"),
    "--output": value("folder for report.md, report.json and pictures", type=Path),
    "--predictions": value("CSV table to write, with the answer for every recording", type=Path),
    "--robustness": flag(
        "also score the recordings after codecs, in noise and rooms, at other levels and speeds "
        "(takes about twenty times as long)"
    ),
    **shared("--json"),
}


def run(options: argparse.Namespace) -> int:
    """Evaluate, write the report and print."""
    from emoser.finetune.scoring.models import ScoringOptions, score_models
    from emoser.finetune.scoring.predictions import write_predictions
    from emoser.finetune.scoring.report import write_report
    from emoser.finetune.scoring.robustness import measure_robustness

    show_warnings()
    names = [options.model, *([options.against] if options.against else [])]
    models = [open_classifier(options, name) for name in names]
    labelled = all(model.labels for model in models)
    utterances = read_corpus(options, targets=AUTO if labelled else "dimensions")
    if options.split is not None:
        utterances = _select_split(utterances, options.split)
    chosen = select(options, "only_known", "skip_unreadable", "allow_trained_on")
    scoring = ScoringOptions(options.protocol or "", **chosen)
    scores = score_models(models, utterances, scoring)
    evaluation, comparison = scores.evaluation, scores.comparison
    robustness = None
    if options.robustness:
        trained_on = evaluation.report.trained_on
        robustness = measure_robustness(
            models[0], scores.utterances, scores.labels, trained_on=trained_on
        )
    if options.predictions is not None:
        write_predictions(scores, options.predictions)
    if options.output is not None:
        write_report(evaluation, options.output, title=options.model, robustness=robustness)
    if options.json:
        measured = {"comparison": comparison, "robustness": robustness}
        plain = {name: found and found.to_dict() for name, found in measured.items()}
        print(format_json({**evaluation.to_dict(), **plain}))
        return 0
    show(f"protocol: {evaluation.protocol}", *evaluation.notes, evaluation.report)
    show(*evaluation.describe_intervals())
    if comparison is not None:
        show(comparison)
    if robustness is not None:
        show(robustness)
    return 0


def _select_split(utterances: Sequence["Utterance"], split: str) -> list["Utterance"]:
    found = [item for item in utterances if item.split == split]
    if not found:
        splits = sorted({item.split for item in utterances if item.split is not None})
        raise ValueError(
            f"no recording has the split {split!r}; "
            + (f"the splits are {', '.join(splits)}" if splits else "none has any split")
        )
    return found
