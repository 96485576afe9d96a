"""`emoser evaluate`: score a checkpoint on labelled recordings."""

import argparse
import json
from pathlib import Path

from emoser.cli.finetune import CORPUS, show_warnings
from emoser.cli.options import flag, shared, show, value

HELP = "score a checkpoint on labelled recordings"
DESCRIPTION = (
    "Score a checkpoint on labelled recordings; --against scores a second one on the same "
    "recordings and compares them."
)
OPTIONS = {
    **shared("model"),
    **CORPUS,
    "--against": value("second model, for comparison", metavar="MODEL"),
    "--split": value("score only this part of the official split of the corpus, such as test"),
    "--protocol": {
        "default": "not stated: whether the model was trained on these speakers is not known",
        "help": "how the model and the recordings were chosen, in a sentence for the report",
    },
    "--only-known": flag("leave out recordings with labels that the model lacks"),
    "--output": value("folder for report.md, report.json and confusion.png", type=Path),
    **shared("--json"),
}


def run(options: argparse.Namespace) -> int:
    """Evaluate, write the report and print."""
    from emoser.finetune import read_corpus
    from emoser.finetune.scoring.report import score_models, write_report

    show_warnings()
    utterances = read_corpus(options.corpus, root=options.root)
    if options.split is not None:
        utterances = [item for item in utterances if item.split == options.split]
    names = [options.model, *([options.against] if options.against else [])]
    evaluation, comparison = score_models(
        names, utterances, protocol=options.protocol, only_known=options.only_known
    )
    if options.output is not None:
        write_report(evaluation, options.output, title=options.model)
    if options.json:
        compared = None if comparison is None else comparison.to_dict()
        print(json.dumps({**evaluation.to_dict(), "comparison": compared}))
        return 0
    low, high = evaluation.uar_interval
    show(f"protocol: {evaluation.protocol}", *evaluation.notes, evaluation.report)
    print(
        f"95 % interval of the UAR over {evaluation.drawn}: {100 * low:.1f} to {100 * high:.1f} %"
    )
    if comparison is not None:
        show(comparison)
    return 0
