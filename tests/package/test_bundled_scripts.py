"""The scripts that train and evaluate emoser-tiny: splits, pretraining, stages, calibration."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from support.voices import write_voices

from emoser.checkpoints.save import build_model, load_model
from emoser.finetune import Utterance
from emoser.models.config import ModelConfig

SCRIPTS = Path(__file__).parents[2] / "examples" / "bundled"
MODULES = (
    "measure", "recipe", "network", "egemaps_svm", "train", "pretrain", "store_means", "small",
    "measure_small", "measure_adaptation", "measure_robustness",
)  # fmt: skip


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


def test_corpora_that_are_missing_leave_their_weight_to_the_others(measure, speech):
    recipe = sys.modules["recipe"]
    rest = [item for item in speech if item.corpus != "nemo"]
    weights = recipe.fit_config(recipe.RECIPE, rest).data.corpus_weights
    assert weights == pytest.approx({"ravdess": 0.595, "cremad": 0.405})
    alone = [item for item in speech if item.corpus == "nemo"]
    fitted = recipe.fit_config(recipe.RECIPE, alone)
    assert set(fitted.data.corpus_weights) == {"nemo"}
    assert not fitted.data.restricted_labels


def test_figures_are_those_of_what_was_stored(measure, speech, tmp_path):
    splits = measure.split_folds(speech)
    for split in splits[:2]:  # neutral and fear are right, sad is taken for neutral
        logits = np.zeros((len(split.test), 8), np.float32)
        for row, item in zip(logits, split.test, strict=True):
            chosen = "neutral" if item.label == "sad" else item.label
            row[measure.ALL_LABELS.index(chosen)] = 1.0
        measure.store(
            tmp_path / "folds" / "emoser-tiny-1" / f"{split.name}.npz", logits, measure.ALL_LABELS
        )
    lines = [
        [cell.strip() for cell in line.split("|")] for line in measure.tabulate(tmp_path, speech)
    ]
    assert [cells[2:6] for cells in lines[2:]] == [
        ["emoser-tiny", "1", "2 of 5", "0.500"],  # RAVDESS, neutral and sad of four classes
        ["emoser-tiny", "1", "2 of 5", "0.667"],  # fear of eight classes beside them
        ["emoser-tiny", "1", "2 of 5", "0.500"],  # nEMO
    ]


@pytest.fixture(scope="module")
def pretrain(measure):
    return importlib.import_module("pretrain")


def test_the_parts_of_a_frame_are_described_at_their_place_in_its_field(pretrain):
    """A click in the middle of part 2 of frame 9 is loudest in row 4 x 9 + 2."""
    samples = np.random.default_rng(0).normal(size=32_000).astype(np.float32) * 1e-3
    parts = pretrain.PARTS
    centre = 9 * pretrain.HOP + pretrain.FIELD // 2 + pretrain.PART_HOP // 2  # of part 2 of 0 to 3
    samples[centre - 8 : centre + 8] += 0.5
    sound, voice = pretrain.cut_rows(
        [pretrain.describe_sounds(samples), pretrain.describe_voice(samples)], samples
    )
    num_frames = (len(samples) - pretrain.FIELD) // pretrain.HOP + 1
    assert len(sound) == len(voice) == parts * num_frames
    assert sound[:, 0].argmax() == voice[:, 2].argmax() == parts * 9 + 2


def test_the_field_of_a_frame_is_that_of_the_encoder(pretrain):
    model = build_model(pretrain.ENCODER, ModelConfig(labels=("neutral", "sad")), seed=0)
    lengths = torch.tensor([pretrain.FIELD, pretrain.FIELD + pretrain.HOP])
    assert model.encoder.min_samples == pretrain.FIELD
    assert model.encoder.count_frames(lengths).tolist() == [1, 2]


def test_a_batch_has_the_clusters_of_each_frame(pretrain, monkeypatch):
    """Clips whose samples are the number of their frame, without variations."""
    monkeypatch.setattr(pretrain, "augment", lambda samples, *_: samples)
    count = 400
    names = np.arange(count)[:, None, None]
    clip = pretrain.Clip(
        np.repeat(np.arange(count, dtype=np.int16), pretrain.HOP),
        np.broadcast_to(names, (count, pretrain.PARTS, 2)),
    )
    batch = pretrain.draw_batch([clip], step=3)
    frames = (batch.samples[:, :: pretrain.HOP] * 32768).round().long()[:, : pretrain.CROP_FRAMES]
    assert bool((frames[..., None, None] == batch.clusters).all())
    assert 0.3 < float(batch.masked.float().mean()) < 0.7


@pytest.fixture
def sides(tmp_path):
    """Some clips of two speakers, and of a third."""
    rows = write_voices(tmp_path, 12, num_voices=3, noise=0.01, suffix=".wav")
    clips = [Utterance(path, label, speaker=str(who), corpus="nemo") for path, label, who in rows]
    training = [item for item in clips if item.speaker != "2"]
    return training, [item for item in clips if item.speaker == "2"]


def test_a_network_starts_from_the_pretrained_encoder(pretrain, sides, tmp_path):
    recipe = sys.modules["recipe"]
    training, test = sides
    start = tmp_path / "network.pt"
    first = pretrain.build_guesser(training).model.encoder.state_dict()
    torch.save(first, start)
    still = recipe.replace(
        recipe.RECIPE,
        epochs=1,
        epoch_clips=4,
        batch_size=2,
        ema_decay=0.0,
        weight_decay=0.0,
        encoder_learning_rate=0.0,
    )
    moving = recipe.replace(still, encoder_learning_rate=1e-3)
    ends = [
        recipe.train_network(training, test, tmp_path / name, stages=(config,), start=start)
        for name, config in (("still", still), ("moving", moving))
    ]
    weights = [model.encoder.state_dict() for model in ends]
    assert all(torch.equal(weights[0][name], value) for name, value in first.items())
    bank = "feature_extractor.conv_layers.0.conv.weight"
    moved = "backbone.encoder.layers.0.feed_forward.output_dense.weight"
    assert torch.equal(weights[1][bank], first[bank])
    assert not torch.equal(weights[1][moved], first[moved])


def test_stages_end_as_the_mean_of_the_weights_after_the_first(pretrain, sides, tmp_path):
    recipe = sys.modules["recipe"]
    training, test = sides
    start = tmp_path / "network.pt"
    torch.save(pretrain.build_guesser(training).model.encoder.state_dict(), start)
    brief = {"epochs": 1, "epoch_clips": 4, "batch_size": 2, "ema_decay": 0.0}
    stages = [recipe.replace(stage, **brief) for stage in recipe.STAGES]
    mean = recipe.train_network(training, test, tmp_path / "run", stages=stages, start=start)
    later = range(2, len(stages) + 1)
    ends = [load_model(tmp_path / f"run/stage{n}/best").state_dict() for n in later]
    for name, value in mean.state_dict().items():
        assert torch.allclose(value, sum(end[name] for end in ends) / len(ends), atol=1e-6)
    moved = "encoder.backbone.encoder.layers.0.feed_forward.output_dense.weight"
    assert not torch.equal(ends[0][moved], ends[1][moved])


def test_a_temperature_never_comes_from_the_speakers_that_it_is_scored_on(measure):
    generator = np.random.default_rng(0)
    logits = 2.0 * generator.standard_normal((4000, 4))
    truth = (logits + generator.gumbel(size=(4000, 4))).argmax(axis=1)  # drawn by their softmax
    truths = [truth[:2000], truth[2000:]]
    alike = [logits[:2000] * 5.0, logits[2000:] * 5.0]  # both five times too sure
    assert measure.cross_calibrate(alike, truths) < 0.03
    assert measure.cross_calibrate([alike[0], logits[2000:]], truths) > 0.1
