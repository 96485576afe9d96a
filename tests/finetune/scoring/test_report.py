"""Reports state the unit of their confidence intervals."""

import numpy as np
import pytest

from emoser.finetune import Utterance
from emoser.finetune.scoring.comparison import compare
from emoser.finetune.scoring.report import assess, to_markdown

LABELS = ("happy", "sad")


@pytest.mark.parametrize(("num_speakers", "unit"), [(1, "recordings"), (4, "4 speakers")])
def test_an_interval_states_its_unit(num_speakers, unit):
    utterances = [
        Utterance(f"{number}.wav", LABELS[number // 4 % 2], speaker=f"s{number % num_speakers}")
        for number in range(16)
    ]
    logits = np.eye(2, dtype=np.float32)[[number // 4 % 2 for number in range(16)]]
    logits[0] = logits[0, ::-1]
    found = assess(logits, utterances, LABELS, protocol="a test")
    assert f"95 % interval over {unit}" in to_markdown(found, title="a title")
    low, high = found.accuracy_interval
    assert low < 15 / 16 < high
    other = compare((logits, logits), (LABELS,) * 2, utterances, names=("a", "b"), labels=LABELS)
    assert f"95 % interval over {unit} +0.0 to +0.0" in str(other)
    speakers = "1 known speaker" if num_speakers == 1 else "4 known speakers"
    assert str(found.report).startswith(f"16 recordings of {speakers}: ")
