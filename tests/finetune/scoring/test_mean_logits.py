"""The mean logits of training speakers, against the linear algebra of the head."""

import numpy as np
import pytest
import torch
from support.models import LABELS, loud_model, random_clips, small_config

from emoser.finetune import Utterance
from emoser.finetune.data.recordings import Recordings
from emoser.finetune.scoring.mean_logits import choose_clips, measure_mean_logits

SPEAKERS = ("anna", "anna", "anna", "ben", "ben")
CLIP_LABELS = (LABELS[0], LABELS[1], LABELS[1], LABELS[0], LABELS[3])


@pytest.fixture
def utterances(tmp_path):
    soundfile = pytest.importorskip("soundfile")
    rows = []
    for place, clip in enumerate(random_clips([8_000, 9_000, 7_000, 12_000, 10_000])):
        file = tmp_path / f"{place}.wav"
        soundfile.write(file, clip, 16_000, subtype="FLOAT")
        rows.append(Utterance(str(file), CLIP_LABELS[place], speaker=SPEAKERS[place]))
    return rows


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_they_are_the_answer_of_the_head_to_the_mean_embedding(temperature, utterances):
    model = loud_model(small_config(), temperature=temperature)
    with torch.inference_mode():
        rows = torch.cat(
            [model(torch.from_numpy(samples)[None]).embedding for samples in Recordings(utterances)]
        )
        anna = (rows[0] + (rows[1] + rows[2]) / 2) / 2
        expected = model.head(((anna + (rows[3] + rows[4]) / 2) / 2)[None])[0]
    expected = (expected - expected.mean()).tolist()
    found = measure_mean_logits(model, Recordings(), utterances)
    assert found == pytest.approx(expected, abs=1e-4)


def test_a_head_that_is_not_linear_has_none(utterances):
    model = loud_model(small_config(), head="dense", activation="relu", projection_size=8)
    assert measure_mean_logits(model, Recordings(), utterances) == ()


def test_a_large_corpus_is_thinned_without_losing_a_speaker():
    rows = [
        Utterance(f"{place}.wav", label, speaker=f"{place % 60}")
        for place in range(6_000)
        for label in LABELS
    ]
    chosen = choose_clips(rows, LABELS)
    assert len(chosen) == 1_000
    assert len({item.speaker for item in chosen}) == 60
    counts = np.unique([item.label for item in chosen], return_counts=True)[1]
    assert counts.max() - counts.min() < 30
