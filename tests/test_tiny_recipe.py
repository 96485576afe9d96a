"""The scripts that make and measure emoser-tiny: their splits, and how they calibrate."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from emoser.finetune import Utterance

SCRIPTS = Path(__file__).parent.parent / "examples" / "bundled"
MODULES = ("measure", "recipe", "network", "egemaps_svm", "train", "pretrain")


@pytest.fixture(scope="module")
def measure():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(SCRIPTS)
        yield importlib.import_module("measure")
        for name in MODULES:
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
    splits = measure.split_folds(speech)
    tested = [
        sorted({item.speaker for item in split.test if item.corpus == "ravdess"})
        for split in splits
    ]
    assert tested[0] == ["01", "06", "11", "16"]
    assert sorted(name for names in tested for name in names) == [f"{n:02d}" for n in range(1, 19)]
    assert {item.corpus for item in splits[0].training} == {"ravdess", "nemo", "cremad"}


def test_every_speaker_of_nemo_is_tested_once(measure, speech):
    tested = [
        name
        for split in measure.split_folds(speech)
        for name in {item.speaker for item in split.test if item.corpus == "nemo"}
    ]
    assert sorted(tested) == ["EB0", "KD0", "KS0"]


@pytest.mark.parametrize("plan", ["folds", "cross"])
def test_no_tested_speaker_is_trained_on(measure, speech, plan):
    for split in measure.PLANS[plan](speech):
        voices = {item.voice for item in split.test}
        assert voices
        assert not voices & {item.voice for item in split.training}


def test_across_corpora_no_label_of_the_tested_corpus_is_learned(measure, speech):
    for split in measure.split_corpora(speech):
        (tested,) = {item.corpus for item in split.test}
        assert tested not in {item.corpus for item in split.training}


def test_settings_name_only_corpora_that_are_there_and_choose_no_epoch(measure, speech):
    recipe = sys.modules["recipe"]
    alone = [item for item in speech if item.corpus == "nemo"]
    fitted = recipe.fit_config(recipe.CONFIG, alone)
    assert set(fitted.corpus_weights) == {"nemo"}
    assert not fitted.restricted_labels
    assert fitted.selection == "last"


def test_figures_are_those_of_what_was_stored(measure, speech, tmp_path):
    splits = measure.split_folds(speech)
    for split in splits[:2]:  # neutral and fear are right, sad is taken for neutral
        logits = np.zeros((len(split.test), 8), np.float32)
        for row, item in zip(logits, split.test, strict=True):
            said = "neutral" if item.label == "sad" else item.label
            row[measure.ALL_LABELS.index(said)] = 1.0
        measure.store(
            tmp_path / "folds" / "network-1" / f"{split.name}.npz", logits, measure.ALL_LABELS
        )
    lines = [
        [cell.strip() for cell in line.split("|")] for line in measure.tabulate(tmp_path, speech)
    ]
    assert [cells[2:6] for cells in lines] == [
        ["network", "1", "2 of 5", "0.500"],  # RAVDESS, neutral and sad of four classes
        ["network", "1", "2 of 5", "0.667"],  # fear of eight classes beside them
        ["network", "1", "2 of 5", "0.500"],  # nEMO
    ]


@pytest.fixture(scope="module")
def pretrain(measure):
    return importlib.import_module("pretrain")


def test_a_described_frame_is_where_the_encoder_hears_it(pretrain):
    """A click in the middle of frame 40 of the encoder is loudest in row 40."""
    samples = np.random.default_rng(0).normal(size=32_000).astype(np.float32) * 1e-3
    centre = 40 * pretrain.HOP + pretrain.FIELD // 2
    samples[centre - 8 : centre + 8] += 0.5
    sound, voice = pretrain.cut_rows(
        [pretrain.describe_sounds(samples), pretrain.describe_voice(samples)], samples
    )
    num_frames = (len(samples) - pretrain.FIELD) // pretrain.HOP + 1
    assert len(sound) == len(voice) == num_frames
    assert sound[:, 0].argmax() == voice[:, 2].argmax() == 40


def test_a_batch_says_of_each_frame_what_was_there(pretrain, monkeypatch):
    """Clips whose samples tell the number of their frame, without variations."""
    monkeypatch.setattr(pretrain, "augment", lambda samples, *_: samples)
    count = 400
    clip = pretrain.Clip(
        np.repeat(np.arange(count, dtype=np.int16), pretrain.HOP),
        np.stack([np.arange(count), np.arange(count)], axis=1),
    )
    batch = pretrain.draw_batch([clip], step=3)
    heard = (batch.samples[:, :: pretrain.HOP] * 32768).round().long()
    assert bool((heard[:, : pretrain.CROP_FRAMES] == batch.clusters[..., 0]).all())
    assert 0.3 < float(batch.masked.float().mean()) < 0.7


def test_the_mean_of_networks_is_the_mean_of_their_weights(measure, tmp_path):
    train, network = importlib.import_module("train"), sys.modules["network"]
    config = train.replace(network.ModelConfig(labels=network.ALL_LABELS))
    models = [network.build_model(network.ENCODER, config, seed=seed) for seed in (1, 2)]
    for number, model in enumerate(models):
        train.save_model(model, tmp_path / str(number))
    mean = train.average_networks([tmp_path / "0", tmp_path / "1"]).state_dict()
    first, second = (model.state_dict() for model in models)
    for name, value in mean.items():
        assert torch.allclose(value, (first[name] + second[name]) / 2, atol=1e-6)


def test_a_temperature_never_comes_from_the_speakers_that_it_is_scored_on(measure):
    generator = np.random.default_rng(0)
    logits = 2.0 * generator.standard_normal((4000, 4))
    truth = (logits + generator.gumbel(size=(4000, 4))).argmax(axis=1)  # drawn by their softmax
    truths = [truth[:2000], truth[2000:]]
    alike = [logits[:2000] * 5.0, logits[2000:] * 5.0]  # both five times too sure
    assert measure.cross_calibrate(alike, truths) < 0.03
    assert measure.cross_calibrate([alike[0], logits[2000:]], truths) > 0.1
