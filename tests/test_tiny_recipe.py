"""The scripts that make and measure emoser-tiny: their splits, and how they calibrate."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

from emoser.finetune import Utterance

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture(scope="module")
def measure():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EXAMPLES)
        yield importlib.import_module("measure_emoser_tiny")
        for name in ("measure_emoser_tiny", "train_emoser_tiny", "egemaps_svm"):
            sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def speech():
    voices = [("ravdess", f"{actor:02d}") for actor in range(1, 19)]
    voices += [("nemo", name) for name in ("EB0", "KD0", "KS0")] + [("cremad", "1001")]
    return [
        Utterance(f"{corpus}-{speaker}-{label}.wav", label, speaker=speaker, corpus=corpus)
        for corpus, speaker in voices
        for label in (("happy", "sad") if corpus == "cremad" else ("neutral", "fear", "sad"))
    ]


def test_fold_k_holds_the_actors_whose_number_minus_one_is_k_modulo_five(measure, speech):
    splits = measure.split_ravdess(speech)
    tested = [sorted({item.speaker for item in split.test}) for split in splits]
    assert tested[0] == ["01", "06", "11", "16"]
    assert sorted(name for names in tested for name in names) == [f"{n:02d}" for n in range(1, 19)]
    assert {item.corpus for item in splits[0].training} == {"ravdess", "nemo", "cremad"}


@pytest.mark.parametrize("row", ["ravdess", "nemo", "cross"])
def test_no_tested_speaker_is_trained_on(measure, speech, row):
    for split in measure.ROWS[row].build(speech):
        voices = {item.voice for item in split.test}
        assert voices
        assert not voices & {item.voice for item in split.training + split.single}


def test_across_corpora_no_label_of_the_tested_corpus_is_learned(measure, speech):
    for split in measure.split_corpora(speech):
        (tested,) = {item.corpus for item in split.test}
        assert tested not in {item.corpus for item in split.training}


def test_stages_name_only_corpora_that_are_there_and_choose_no_epoch(measure):
    for config in measure.STAGES:
        fitted = measure.fit_config(config, {"nemo"}, seed=3, part=0.1)
        assert set(fitted.corpus_weights) == {"nemo"}
        assert not fitted.restricted_labels
        assert fitted.selection == "last"
        assert fitted.epochs == max(round(config.epochs * 0.1), 1)


def test_figures_are_those_of_what_was_stored(measure, speech, tmp_path):
    splits = measure.split_nemo(speech)
    for split in splits[:2]:  # neutral and fear are right, sad is taken for neutral
        logits = np.zeros((len(split.test), 8), np.float32)
        for row, item in zip(logits, split.test, strict=True):
            said = "neutral" if item.label == "sad" else item.label
            row[measure.ALL_LABELS.index(said)] = 1.0
        measure.store(
            tmp_path / "nemo" / "network-1" / f"{split.name}.npz", logits, measure.ALL_LABELS
        )
    (line,) = measure.tabulate("nemo", tmp_path, speech)
    cells = [cell.strip() for cell in line.split("|")]
    assert cells[1:6] == ["nemo, 4 classes", "network", "1", "2 of 3", "0.500"]


def test_a_temperature_never_comes_from_the_speakers_that_it_is_scored_on(measure):
    generator = np.random.default_rng(0)
    logits = 2.0 * generator.standard_normal((4000, 4))
    truth = (logits + generator.gumbel(size=(4000, 4))).argmax(axis=1)  # drawn by their softmax
    truths = [truth[:2000], truth[2000:]]
    alike = [logits[:2000] * 5.0, logits[2000:] * 5.0]  # both five times too sure
    assert measure.cross_calibrate(alike, truths) < 0.03
    assert measure.cross_calibrate([alike[0], logits[2000:]], truths) > 0.1
