"""A table of what a model answered: one row per recording."""

import os
from pathlib import Path

import numpy as np

from emoser.checkpoints.atomic import write_text
from emoser.finetune.scoring.models import Scores
from emoser.finetune.scoring.votes import YES
from emoser.results.segments import SILENCE
from emoser.text import csv_line, guard_cell

COLUMNS = ("path", "start", "end", "corpus", "speaker", "label", "predicted", "score")


def write_predictions(scores: Scores, file: Path) -> None:
    """Write a CSV table with the true label, the answer and the scores of every recording.

    The scores are those of `predict`; the answer to a recording in which nobody speaks is
    "silence", without a score. Several labels at once are joined by semicolons. Of every dimension
    there are the true value, on a scale of 0 to 1, and the answer.

    Raises:
        DiskError: If the disk is full.
        OSError: If the file cannot be written.
    """
    labels = [label for label in scores.labels if label != SILENCE]
    values = [f"{kind}_{name}" for name in scores.dimensions for kind in ("true", "predicted")]
    lines = [csv_line([*COLUMNS, *map(guard_cell, (*labels, *values))])]
    for item, row in zip(scores.utterances, scores.logits, strict=True):
        count = len(scores.labels)
        found = dict(zip(scores.labels, np.exp(row[:count].astype(np.float64)), strict=True))
        if item.labels is not None:
            answer = ";".join(label for label in labels if found[label] >= YES)
        else:
            answer = scores.labels[int(row[:count].argmax())] if count else ""
        truth = ";".join(item.answers)
        texts = (item.path, item.start, item.end, item.corpus, item.speaker, truth, answer)
        cells = ["" if text is None else guard_cell(str(text)) for text in texts]
        scored = answer in found and answer != SILENCE and item.labels is None
        cells.append(f"{found[answer]:.6f}" if scored else "")
        cells += [f"{found[label]:.6f}" for label in labels]
        for name, value in zip(scores.dimensions, row[count:], strict=True):
            cells += [f"{item.value(name):.6f}", f"{value:.6f}"]
        lines.append(csv_line(cells))
    write_text(Path(os.path.realpath(file)), "".join(lines))
