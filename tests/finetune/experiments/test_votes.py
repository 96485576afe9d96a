"""Votes of annotators, and several labels at once, from a table to a model and a report."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.special import rel_entr
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score
from support.models import random_clips
from support.voices import LOUD, RATE, save_voice_base, voice_config, write_mixtures
from torch.nn import functional
from transformers import (
    HubertForSequenceClassification,
    Wav2Vec2FeatureExtractor,
    pipeline,
)

from emoser import EmotionClassifier
from emoser.checkpoints.save import build_model, load_model
from emoser.cli import main
from emoser.finetune import FinetuneConfig, Utterance, evaluate, finetune, read_corpus, train
from emoser.finetune.config import Augmentation
from emoser.finetune.data import conditions
from emoser.finetune.scoring.calibration import fit_temperature
from emoser.finetune.scoring.figures import score_logits
from emoser.finetune.scoring.report import assess
from emoser.finetune.settings import OptimisationSettings
from emoser.finetune.training.loss import TrainingLoss, build_targets, masked_cross_entropy
from emoser.models.config import ModelConfig
from emoser.models.model import EmotionOutput

LABELS = ("neutral", "happy", "sad")
CONFIG = FinetuneConfig(
    mode="entire", epochs=12, batch_size=8, encoder_learning_rate=5e-3, head_learning_rate=5e-3,
    crop_seconds=None, masking=False, augmentation=Augmentation.off(),
)  # fmt: skip


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_voice_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """Mixtures of three tones: the shares of votes, and the labels of all that are loud."""
    folder = tmp_path_factory.mktemp("tones")
    shares, several = [("path", "speaker", *LABELS)], [("path", "speaker", "labels")]
    for index, (name, parts) in enumerate(write_mixtures(folder, 120, seed=3)):
        loud = [label for label, part in zip(LABELS, parts, strict=True) if part > LOUD]
        shares.append((name, f"v{index % 6}", *parts))
        several.append((name, f"v{index % 6}", ";".join(loud)))
    for name, rows in (("shares", shares), ("several", several)):
        with (folder / f"{name}.csv").open("w", newline="") as file:
            csv.writer(file).writerows(rows)
    return folder


@pytest.fixture(scope="module")
def several(tables, base, tmp_path_factory):
    folder = tmp_path_factory.mktemp("several")
    config = replace(CONFIG, base=str(base))
    return finetune(read_corpus(tables / "several.csv"), config=config, output=folder), folder


def test_a_distribution_is_learned(tables, base, tmp_path):
    utterances = read_corpus(tables / "shares.csv")
    config = replace(CONFIG, base=str(base))
    result = finetune(utterances, config=config, output=tmp_path)
    votes = result.evaluation.report.votes
    assert votes["divergence"] < 0.1
    assert votes["agreement"] > 0.9 * votes["ceiling"]
    assert result.epochs[-1]["divergence"] < 0.5 * result.epochs[0]["divergence"]
    assert "votes that agree with the majority" in (tmp_path / "report.md").read_text()
    assert "Divergence from the votes" in (tmp_path / "best" / "README.md").read_text()


def test_the_loss_of_a_distribution_is_the_cross_entropy_of_torch():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(5, 3, generator=generator)
    shares = torch.randn(5, 3, generator=generator).softmax(dim=1)
    allowed, labels = torch.ones(5, 3, dtype=torch.bool), shares.argmax(dim=1)
    found = masked_cross_entropy(logits, labels, allowed, smoothing=0.1, shares=shares)
    torch.testing.assert_close(found, functional.cross_entropy(logits, shares, label_smoothing=0.1))


def test_the_loss_of_several_labels_is_the_binary_cross_entropy_of_torch():
    rows = [Utterance("a.wav", labels=("sad", "happy")), Utterance("b.wav", labels=())]
    targets = build_targets(rows, LABELS, restricted={}, multi_label=True)
    logits = torch.randn(2, 3, generator=torch.Generator().manual_seed(0))
    loss = TrainingLoss(OptimisationSettings(), size=2, multi_label=True)
    wanted = torch.tensor([[0.0, 1.0, 1.0], [0.0, 0.0, 0.0]])
    torch.testing.assert_close(
        loss(EmotionOutput(logits, torch.zeros(2, 2)), targets),
        functional.binary_cross_entropy_with_logits(logits, wanted),
    )


def test_figures_of_votes_are_those_of_scipy():
    generator = np.random.default_rng(0)
    logits = generator.standard_normal((40, 3)).astype(np.float32)
    counts = generator.integers(0, 4, (40, 3))
    counts[:, 0] += 1
    rows = [
        Utterance("a.wav", votes=dict(zip(LABELS, map(float, row), strict=True))) for row in counts
    ]
    found = score_logits(logits, rows, LABELS, labels=LABELS).votes
    shares = counts / counts.sum(axis=1, keepdims=True)
    powers = np.exp(logits.astype(np.float64))
    probabilities = powers / powers.sum(axis=1, keepdims=True)
    assert found["divergence"] == pytest.approx(rel_entr(shares, probabilities).sum(axis=1).mean())
    assert found["ceiling"] == pytest.approx(shares.max(axis=1).mean())
    answers = np.eye(3)[logits.argmax(axis=1)]
    assert found["agreement"] == pytest.approx((shares * answers).sum(axis=1).mean())


def test_figures_of_several_labels_are_those_of_scikit_learn():
    generator = np.random.default_rng(0)
    truth = generator.integers(0, 2, (60, 3))
    probabilities = generator.uniform(size=(60, 3))
    rows = [
        Utterance("a.wav", labels=tuple(np.array(LABELS)[row.astype(bool)]), speaker=str(place % 3))
        for place, row in enumerate(truth)
    ]
    found = score_logits(np.log(probabilities).astype(np.float32), rows, LABELS, labels=LABELS)
    answers = (probabilities >= 0.5).astype(int)
    assert found.accuracy == pytest.approx(accuracy_score(truth, answers))
    assert found.macro_f1 == pytest.approx(f1_score(truth, answers, average="macro"))
    recalls = [balanced_accuracy_score(truth[:, i], answers[:, i]) for i in range(3)]
    assert found.uar == pytest.approx(np.mean(recalls))
    assert len(found.per_speaker) == 3


def test_several_labels_are_learned_saved_and_loaded_by_transformers(several):
    result, folder = several
    report = result.evaluation.report
    assert report.macro_f1 > 0.8
    assert report.confusion == ()
    assert set(report.f1_by_label) == set(LABELS)
    assert load_model(folder / "best").config.multi_label
    theirs = HubertForSequenceClassification.from_pretrained(folder / "best").eval()
    assert theirs.config.problem_type == "multi_label_classification"
    clip = random_clips([RATE])[0]
    classifier = EmotionClassifier.from_pretrained(folder / "best", device="cpu", backend="torch")
    ours = classifier.predict(clip, sampling_rate=RATE).scores
    features = Wav2Vec2FeatureExtractor.from_pretrained(folder / "best")
    with torch.inference_mode():
        logits = theirs(**features(clip, sampling_rate=RATE, return_tensors="pt")).logits[0]
    expected = dict(zip(LABELS, logits.sigmoid().tolist(), strict=True))
    assert dict(ours) == pytest.approx(expected, abs=1e-5)
    answers = pipeline("audio-classification", str(folder / "best"), device="cpu")(clip)
    assert {item["label"]: item["score"] for item in answers} == pytest.approx(expected, abs=1e-5)


def test_the_command_of_evaluation_takes_several_labels(
    several, tables, tmp_path, capsys, monkeypatch
):
    model, table = str(several[1] / "best"), str(tables / "several.csv")
    command = ["evaluate", model, table, "--allow-trained-on", "--against", model]
    assert main([*command, "--predictions", str(tmp_path / "answers.csv"), "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    with (tmp_path / "answers.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    pairs = [[set(row[name].split(";")) for name in ("label", "predicted")] for row in rows]
    right = np.mean([truth == answer for truth, answer in pairs])
    assert figures["report"]["accuracy"] == pytest.approx(right)
    assert figures["comparison"]["difference"] == 0.0
    every, _ = conditions.list_conditions()
    chosen = {"clipping": every["clipping"]}
    monkeypatch.setattr("emoser.finetune.scoring.robustness.list_conditions", lambda: (chosen, ()))
    assert main([*command, "--robustness", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["robustness"]["uar"] == pytest.approx(found["report"]["uar"])
    before = found["report"]["macro_f1"]
    assert found["robustness"]["figures"]["macro F1"] == pytest.approx(before)


def test_a_model_of_one_label_is_not_scored_or_trained_on_several(tables, tmp_path):
    utterances = read_corpus(tables / "several.csv")
    with pytest.raises(ValueError, match="several labels at once, and the model gives one"):
        evaluate("emoser-tiny", utterances)
    model = build_model(voice_config(), ModelConfig(LABELS), seed=0)
    sides = utterances[:4], utterances[4:8]
    with pytest.raises(ValueError, match="may have several labels at once"):
        train(*sides, model=model, config=CONFIG, output=tmp_path, share_speakers=True)


def test_whether_a_model_can_overfit_is_asked_of_several_labels_too(tables, base, tmp_path, capsys):
    command = ["finetune", str(tables / "several.csv"), "--base", str(base), "--dry-run"]
    assert main([*command, "--output", str(tmp_path), "--mode", "frozen"]) in (0, 3)
    assert "(accuracy " in capsys.readouterr().out


def test_the_temperature_of_votes_is_that_of_their_cross_entropy():
    generator = np.random.default_rng(0)
    logits = 3.0 * generator.standard_normal((200, 3))
    powers = np.exp(logits / 2.0)
    shares = powers / powers.sum(axis=1, keepdims=True)
    assert fit_temperature(logits, shares) == pytest.approx(2.0, abs=1e-3)


def test_recordings_without_a_majority_are_counted():
    votes = [{"happy": 2.0, "sad": 2.0}, {"happy": 3.0, "sad": 1.0}]
    rows = [Utterance(f"{place}.wav", votes=found) for place, found in enumerate(votes)]
    logits = np.zeros((2, 3), np.float32)
    found = assess(logits, rows, LABELS, protocol="a test")
    assert found.notes == (
        "1 recording without a majority counts with the first of its leading labels",
    )


def test_votes_of_labels_that_a_map_joins_are_added():
    item = Utterance("a.wav", votes={"angry": 2.0, "fear": 2.0, "happy": 3.0})
    renamed = item.rename({"angry": "bad", "fear": "bad"})
    assert (renamed.label, dict(renamed.votes)) == ("bad", {"bad": 4.0, "happy": 3.0})
