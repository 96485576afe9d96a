"""Measure how the answers of the bundled checkpoints change with the conditions of the recordings.

    python examples/bundled/measure_robustness.py --base PATH --data PATH --output DIR
    python examples/bundled/measure_robustness.py --checkpoint emoser-tiny --data PATH

The conditions are those of `emoser evaluate --robustness`, and so are the figures. No speaker is
tested by a head that was trained on the same speaker. emoser-small is trained on all speakers at
hand, so its clips are answered by the heads of the folds of `measure_small.py`, whose features are
those in DIR: all clips of RAVDESS with one of the four labels, and every sixth of nEMO. Another
checkpoint, by the second command, is tested on all clips of the speakers that it states to be held
out. The finished checkpoint itself also answers every twelfth clip of read speech without labels:
there, the share of answers that change is all that can be said. emoser-small was not trained on it,
emoser-tiny was, without labels. The first command takes 17 minutes of a core, the second 4.
"""

import argparse
import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from last_layer import put_last_layer
from measure_adaptation import usable
from measure_small import PLANS, SERVED, SMALL, open_layers
from network import LABELS
from small import read_speech

from emoser.checkpoints.resolve import find_checkpoint
from emoser.checkpoints.save import load_model
from emoser.finetune import Utterance
from emoser.finetune.scoring.robustness import (
    ConditionAnswers,
    answer_conditions,
    score_answers,
)
from emoser.finetune.scoring.shifts import PLAIN, Robustness
from emoser.models.model import EmotionModel
from emoser.text import markdown_table

READ_SPEECH = ("librispeech", "picovoice")  # sentences and commands, without labels
THINNING: Mapping[str, int] = {"nemo": 6}  # one clip of so many is taken of a corpus
READ_THINNING = 12  # the same of the read speech
TITLES: Mapping[str, str] = {"ravdess": "RAVDESS", "nemo": "nEMO"}


def read_unlabelled(data: Path) -> list[Utterance]:
    """Some of the read speech; its labels stand for nothing."""
    with (data / "manifest.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["corpus"] in READ_SPEECH]
    return [
        Utterance(str(data / row["path"]), LABELS[0], corpus=row["corpus"])
        for row in rows[::READ_THINNING]
    ]


def answer_folds(
    base: str, speech: list[Utterance], output: Path, *, steps: Mapping[str, int] = THINNING
) -> dict[str, ConditionAnswers]:
    """The answers to clips of each corpus, by heads that were not trained on their speakers.

    Args:
        base: The encoder, as a Hub id or a folder.
        speech: The clips of all corpora.
        output: The folder of the run, with their frames.
        steps: One clip of so many of a corpus is tested.
    """
    layers = open_layers(base, speech, output)
    answers = {}
    for row in SERVED:
        parts = []
        for split in PLANS[row.plan](speech):
            network = put_last_layer(layers.model, layers.fit(split))
            tested = list(filter(usable, split.test))[:: steps.get(row.corpus, 1)]
            parts.append(answer_conditions(network, tested, LABELS))
            print(f"{split.name}: {len(tested)} clips", flush=True)
        answers[row.corpus] = join(parts)
    return answers


def answer_held_out(model: EmotionModel, speech: list[Utterance]) -> dict[str, ConditionAnswers]:
    """The answers of a checkpoint to the clips of the speakers that it states to be held out."""
    held_out: Mapping[str, Sequence[str]] = model.config.training["held_out"]
    chosen = {
        corpus: [
            item
            for item in speech
            if item.corpus == corpus and item.speaker in names and usable(item)
        ]
        for corpus, names in held_out.items()
    }
    return {
        corpus: answer_conditions(model, clips, LABELS) for corpus, clips in chosen.items() if clips
    }


def join(parts: Sequence[ConditionAnswers]) -> ConditionAnswers:
    """The answers to the recordings of all parts."""
    first = parts[0]
    return replace(
        first,
        utterances=tuple(item for part in parts for item in part.utterances),
        answers=np.concatenate([part.answers for part in parts]),
        silent=np.concatenate([part.silent for part in parts]),
        values=np.concatenate([part.values for part in parts]),
    )


def describe(corpora: Mapping[str, ConditionAnswers], read: ConditionAnswers) -> str:
    """The table, and what to fear in each corpus."""
    scored = {corpus: score_answers(answers) for corpus, answers in corpora.items()}
    sizes = {corpus: len(answers.utterances) for corpus, answers in corpora.items()}
    table = markdown_table(list(_rows(scored, sizes, read)))
    warnings = [f"{TITLES[corpus]}. {found.warning}" for corpus, found in scored.items()]
    return "\n\n".join([table, *warnings])


def _rows(
    scored: Mapping[str, Robustness], sizes: Mapping[str, int], read: ConditionAnswers
) -> Iterator[list[str]]:
    head = ["recordings"]
    for corpus, size in sizes.items():
        head += [f"{TITLES[corpus]}, {size}: UAR", "difference (95 %)", "changed"]
    yield [*head, f"read speech, {len(read.utterances)}: changed"]
    plain = [PLAIN]
    for found in scored.values():
        plain += [f"{100 * found.uar:.1f} %", "", ""]
    yield [*plain, ""]
    for place, name in enumerate(read.conditions):
        row = [name]
        for found in scored.values():
            one = found.conditions[place]
            change = f"{100 * (one.uar - found.uar):+.1f} ({one.range})"
            row += [f"{100 * one.uar:.1f} %", change, f"{100 * one.changed:.0f} %"]
        yield [*row, f"{100 * read.changed[name]:.0f} %"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--base", default="openai/whisper-base", help="Hub id or folder")
    parser.add_argument("--data", type=Path, required=True, help="folder of manifest.csv")
    parser.add_argument("--output", type=Path, help="folder of the run of emoser-small")
    parser.add_argument("--checkpoint", help="test the speakers that this one was not trained on")
    given = parser.parse_args()
    if (given.output is None) == (given.checkpoint is None):
        parser.error("give either --output or --checkpoint")
    torch.set_num_threads(1)  # the same numbers on every machine
    speech = read_speech(given.data)
    finished = load_model(find_checkpoint(given.checkpoint or SMALL).folder)
    if given.checkpoint:
        corpora = answer_held_out(finished, speech)
    else:
        corpora = answer_folds(given.base, speech, given.output)
    print(describe(corpora, answer_conditions(finished, read_unlabelled(given.data), LABELS)))


if __name__ == "__main__":
    main()
