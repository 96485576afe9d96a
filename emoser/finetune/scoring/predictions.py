"""A table of what a model answered: one row per recording."""

import os
from pathlib import Path

import numpy as np

from emoser.checkpoints.atomic import write_text
from emoser.finetune.scoring.models import Scores
from emoser.results.segments import SILENCE
from emoser.text import csv_line, guard_cell

COLUMNS = ("path", "start", "end", "corpus", "speaker", "label", "predicted", "score")


def write_predictions(scores: Scores, file: Path) -> None:
    """Write a CSV table with the true label, the answer and the scores of every recording.

    The scores are those of `predict`; the answer to a recording in which nobody speaks is
    "silence", without a score.

    Raises:
        DiskError: If the disk is full.
        OSError: If the file cannot be written.
    """
    labels = [label for label in scores.labels if label != SILENCE]
    lines = [csv_line([*COLUMNS, *map(guard_cell, labels)])]
    for item, row in zip(scores.utterances, scores.logits, strict=True):
        values = dict(zip(scores.labels, np.exp(row.astype(np.float64)), strict=True))
        answer = scores.labels[int(row.argmax())]
        texts = (item.path, item.start, item.end, item.corpus, item.speaker, item.label, answer)
        cells = ["" if text is None else guard_cell(str(text)) for text in texts]
        shown = "" if answer == SILENCE else f"{values[answer]:.6f}"
        lines.append(csv_line([*cells, shown, *(f"{values[label]:.6f}" for label in labels)]))
    write_text(Path(os.path.realpath(file)), "".join(lines))
