"""Arousal and valence from a table to a model, a report and a comparison."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch
from support.models import LABELS, random_clips
from support.voices import RATE, save_voice_base, voice_config
from transformers import (
    AutoModelForAudioClassification,
    HubertForSequenceClassification,
    Wav2Vec2FeatureExtractor,
    pipeline,
)

from emoser import EmotionClassifier
from emoser.checkpoints.registration import register
from emoser.checkpoints.save import build_model, load_model
from emoser.cli import main
from emoser.finetune import (
    FinetuneConfig,
    Utterance,
    cross_validate,
    evaluate,
    finetune,
    read_corpus,
    train,
)
from emoser.finetune.config import Augmentation
from emoser.finetune.experiments.start import build_initial_model
from emoser.finetune.scoring.dimensions import calibrate_values
from emoser.finetune.training import run as engine
from emoser.metrics import concordance
from emoser.models.config import ModelConfig

NAMES = ("arousal", "valence")
CONFIG = FinetuneConfig(
    mode="entire", epochs=2, batch_size=8, encoder_learning_rate=5e-3, head_learning_rate=5e-3,
    crop_seconds=None, masking=False, augmentation=Augmentation.off(), save_every_steps=3,
)  # fmt: skip


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_voice_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """Valence from 1 to 7 is pitch, and arousal a second tone; tables with and without labels."""
    folder = tmp_path_factory.mktemp("voices")
    generator = np.random.default_rng(0)
    rows = []
    for index in range(144):
        time = np.arange(int(generator.uniform(0.3, 0.5) * RATE)) / RATE
        arousal, valence = generator.uniform(1, 7, size=2).round(3)
        tone = np.sin(2 * np.pi * 240 * 8 ** ((valence - 1) / 6) * time)
        tone += (arousal - 1) / 4 * np.sin(2 * np.pi * 3500 * time)
        soundfile.write(folder / f"{index}.wav", 0.2 * tone, RATE)
        label = "happy" if valence > 4 else "sad"
        rows.append((f"{index}.wav", arousal, valence, f"v{index % 6}", label))
    for name, width in (("values", 4), ("both", 5)):
        with (folder / f"{name}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("path", *NAMES, "speaker", "label")[:width])
            writer.writerows(row[:width] for row in rows)
    return folder


@pytest.fixture(scope="module")
def run(tables, base, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "calls"
    utterances = read_corpus(tables / "values.csv", scale=(1, 7))
    finetune(utterances, config=replace(CONFIG, base=str(base), epochs=16), output=folder)
    return folder


@pytest.fixture(scope="module")
def sides(tables):
    utterances = read_corpus(tables / "both.csv", scale=(1, 7))
    held_out = ("v0", "v1")
    return (
        [item for item in utterances if item.speaker not in held_out],
        [item for item in utterances if item.speaker in held_out],
    )


def test_values_that_can_be_learned_are_learned(run):
    figures = json.loads((run / "report.json").read_text())["report"]["dimensions"]
    assert set(figures) == set(NAMES)
    assert min(found["ccc"] for found in figures.values()) > 0.95


def test_the_trained_model_is_one_of_transformers_with_the_same_numbers(run):
    classifier = EmotionClassifier.from_pretrained(run / "best", device="cpu", backend="torch")
    assert (classifier.labels, classifier.dimensions) == ((), NAMES)
    clip = random_clips([RATE])[0]
    ours = classifier.predict(clip, sampling_rate=RATE)
    assert ours.label is None
    theirs = HubertForSequenceClassification.from_pretrained(run / "best").eval()
    features = Wav2Vec2FeatureExtractor.from_pretrained(run / "best")
    with torch.inference_mode():
        expected = theirs(**features(clip, sampling_rate=RATE, return_tensors="pt")).logits[0]
    assert theirs.config.problem_type == "regression"
    assert [ours.dimensions[name] for name in theirs.config.label2id] == pytest.approx(
        expected.tolist(), abs=1e-5
    )
    answers = pipeline("audio-classification", str(run / "best"), device="cpu")(clip)
    values = {answer["label"]: answer["score"] for answer in answers}
    assert values == pytest.approx(dict(ours.dimensions), abs=1e-5)


def test_scale_protocol_and_figures_are_stated(run):
    card = (run / "best" / "README.md").read_text()
    assert "Protocol: speaker-independent" in card
    assert "which stand for 1 and 7 on the scale of the annotation" in card
    assert "Concordance (CCC) of arousal" in card
    assert load_model(run / "best").config.dimension_scale == (1.0, 7.0)
    report = (run / "report.md").read_text()
    assert "are annotated from 1 to 7" in report
    assert "arousal calibrated on the validation set" in report
    assert "validation CCC" in report
    assert "accuracy" not in report
    assert (run / "dimensions.png").read_bytes().startswith(b"\x89PNG")
    assert not (run / "confusion.png").exists()


def test_evaluate_gives_the_concordance_of_predict_on_the_stored_scale(run, tables):
    utterances = read_corpus(tables / "values.csv")
    half = [item for item in utterances if max(item.dimensions.values()) < 5]  # as if 1 to 5
    report = evaluate(str(run / "best"), half, allow_trained_on=True)
    classifier = EmotionClassifier.from_pretrained(run / "best")
    answers = classifier.predict_batch([item.path for item in half])
    for name in NAMES:
        truth = [(item.dimensions[name] - 1) / 6 for item in half]
        expected = concordance(truth, [answer.dimensions[name] for answer in answers])
        assert report.dimensions[name]["ccc"] == pytest.approx(expected, abs=1e-6)
    assert "CCC" in str(report)


def test_the_commands_of_evaluation_take_dimensions(run, tables, tmp_path, capsys):
    model, table = str(run / "best"), str(tables / "both.csv")
    command = ["evaluate", model, table, "--allow-trained-on", "--against", model]
    options = ["--predictions", str(tmp_path / "answers.csv"), "--output", str(tmp_path / "report")]
    assert main([*command, *options]) == 0
    printed = capsys.readouterr().out
    assert "CCC of valence" in printed
    assert "+0.000" in printed
    with (tmp_path / "answers.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    truth, answers = (
        [float(row[f"{kind}_valence"]) for row in rows] for kind in ("true", "predicted")
    )
    assert f"{concordance(truth, answers):.3f}" in printed
    assert (tmp_path / "report" / "dimensions.png").is_file()
    assert main([*command, "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["report"]["uar"] is None
    assert figures["comparison"]["dimensions"]["arousal"][2] == [0.0, 0.0]
    assert main(["evaluate", model, table, "--allow-trained-on", "--robustness"]) == 2
    assert "leave --robustness out" in capsys.readouterr().err


def test_every_rated_recording_is_learned_and_scored(run, tables, base, tmp_path, capsys):
    lines = (tables / "both.csv").read_text().splitlines()
    rows = [f"{tables / line}" for line in lines[1:37]]
    rows[::2] = [f"{row.rpartition(',')[0]}," for row in rows[::2]]  # half without a label
    (tmp_path / "some.csv").write_text("\n".join([lines[0], *rows]))
    command = ["finetune", str(tmp_path / "some.csv"), "--base", str(base), "--mode", "frozen"]
    options = ["--targets", "dimensions", "--epochs", "1", "--device", "cpu", "--json"]
    assert main([*command, *options, "--output", str(tmp_path / "run")]) == 0
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert sum(side["recordings"] for side in report["training"]["split"].values()) == 36
    capsys.readouterr()
    trained = ["--allow-trained-on", "--json"]
    assert main(["evaluate", str(run / "best"), str(tmp_path / "some.csv"), *trained]) == 0
    assert json.loads(capsys.readouterr().out)["report"]["num_utterances"] == 36


def test_labels_and_dimensions_are_learned_together(sides, tmp_path):
    outputs = ModelConfig(("happy", "sad"), dimensions=NAMES)
    model = build_model(voice_config(), outputs, seed=0)
    result = train(*sides, model=model, config=CONFIG, output=tmp_path)
    assert set(result.epochs[0]) >= {"uar", "ccc", "training_accuracy"}
    report = result.report
    assert report.figure("uar") == (report.uar + report.mean_ccc) / 2
    classifier = EmotionClassifier.from_pretrained(tmp_path / "best", device="cpu")
    clip = random_clips([RATE])[0]
    answer = classifier.predict(clip, sampling_rate=RATE)
    assert set(answer.scores) == {"happy", "sad"}
    register()
    theirs = AutoModelForAudioClassification.from_pretrained(tmp_path / "best").eval()
    with torch.inference_mode():
        logits = theirs(torch.from_numpy(clip)[None]).logits[0]
    assert list(answer.dimensions.values()) == pytest.approx(logits[2:].tolist(), abs=1e-5)
    assert list(answer.scores.values()) == pytest.approx(logits[:2].softmax(0).tolist(), abs=1e-5)


class KilledError(Exception):
    """Stands for the end of the process."""


def test_a_killed_run_ends_with_the_weights_of_an_undisturbed_one(sides, tmp_path, monkeypatch):
    outputs = ModelConfig((), dimensions=NAMES)
    models = [build_model(voice_config(), outputs, seed=0) for _ in range(3)]
    train(*sides, model=models[0], config=CONFIG, output=tmp_path / "whole")
    train_step = engine._Run.train_step

    def fail(run, batch):
        if run.step == 10:
            raise KilledError
        return train_step(run, batch)

    with monkeypatch.context() as patch:
        patch.setattr(engine._Run, "train_step", fail)
        with pytest.raises(KilledError):
            train(*sides, model=models[1], config=CONFIG, output=tmp_path / "killed")
    train(*sides, model=models[2], config=CONFIG, output=tmp_path / "killed")
    first, last = models[0].state_dict(), models[2].state_dict()
    assert all(torch.equal(first[name], last[name]) for name in first)


def test_cross_validation_gives_the_concordance_of_every_fold(tables, base, tmp_path):
    utterances = read_corpus(tables / "values.csv")
    config = replace(CONFIG, base=str(base), epochs=1, mode="frozen")
    settings = {"config": config, "setting": "groups", "num_folds": 3, "output": tmp_path}
    result = cross_validate(utterances, **settings)
    assert result.figures == {"ccc": "CCC"}
    assert "| CCC |" in (tmp_path / "summary.md").read_text()
    assert cross_validate(utterances, **settings).mean("ccc") == result.mean("ccc")
    assert set(result.pooled.report.dimensions) == set(NAMES)


def test_labels_alone_are_learned_where_that_is_asked_for(tables, base, tmp_path):
    command = ["finetune", str(tables / "both.csv"), "--base", str(base), "--scale", "1", "7"]
    settings = ["--targets", "labels", "--epochs", "1", "--mode", "frozen", "--device", "cpu"]
    assert main([*command, "--output", str(tmp_path), *settings]) == 0
    assert load_model(tmp_path / "best").config.outputs == ("happy", "sad")


def test_a_base_with_dimensions_keeps_their_rows(run):
    model = build_initial_model(
        FinetuneConfig(str(run / "best")), ModelConfig(("sad",), dimensions=("valence",))
    )
    theirs = load_model(run / "best")
    assert torch.equal(model.head.classifier.weight[1], theirs.head.classifier.weight[1])
    fresh = build_initial_model(FinetuneConfig("emoser-tiny"), ModelConfig((), dimensions=NAMES))
    assert fresh.head.classifier.bias.tolist() == [0.5, 0.5]


def test_calibration_gives_the_answers_mean_and_spread_of_the_truth():
    model = build_model(voice_config(), ModelConfig(("sad",), dimensions=("valence",)), seed=0)
    samples = torch.from_numpy(np.stack(random_clips([RATE] * 12)))

    def answer():
        with torch.inference_mode():
            return model.eval()(samples).logits.double().numpy()

    before, truth = answer(), np.random.default_rng(1).uniform(size=12)
    notes = calibrate_values(model, {"valence": (truth, before[:, 1])})
    after = answer()
    assert len(notes) == 1
    assert after[:, 1].mean() == pytest.approx(truth.mean(), abs=1e-5)
    assert after[:, 1].std() == pytest.approx(truth.std(), abs=1e-5)
    assert np.array_equal(after[:, 0], before[:, 0])


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"accumulation": 2}, "of a whole batch"),
        ({"batch_size": 1}, "of a whole batch"),
    ],
    ids=["accumulation", "batch"],
)
def test_a_concordance_in_parts_is_refused(sides, tmp_path, changes, fault):
    model = build_model(voice_config(), ModelConfig((), dimensions=NAMES), seed=0)
    with pytest.raises(ValueError, match=fault):
        train(*sides, model=model, config=replace(CONFIG, **changes), output=tmp_path)


def test_a_squared_error_may_be_computed_in_parts(sides, tmp_path):
    model = build_model(voice_config(), ModelConfig((), dimensions=NAMES), seed=0)
    config = replace(CONFIG, accumulation=2, dimension_loss="mse", epochs=1)
    assert train(*sides, model=model, config=config, output=tmp_path).epochs[0]["loss"] < 1.0


def test_what_cannot_be_learned_is_refused_before_the_training(sides, tmp_path):
    model = build_model(voice_config(), ModelConfig((), dimensions=NAMES), seed=0)
    teacher = build_model(voice_config(), ModelConfig(LABELS), seed=0)
    with pytest.raises(ValueError, match="train it without teachers"):
        train(*sides, model=model, config=CONFIG, output=tmp_path, teachers=[teacher])
    other = build_model(voice_config(), ModelConfig((), dimensions=("dominance",)), seed=0)
    with pytest.raises(ValueError, match="lack dominance, which the model learns"):
        train(*sides, model=other, config=CONFIG, output=tmp_path)
    assert not (tmp_path / "best").exists()


def test_the_concordance_selects_no_epoch_of_a_model_without_dimensions(sides, tmp_path):
    model = build_model(voice_config(), ModelConfig(("happy", "sad")), seed=0)
    with pytest.raises(ValueError, match="the model has no dimensions"):
        train(*sides, model=model, config=replace(CONFIG, selection="ccc"), output=tmp_path)


def test_a_scale_may_begin_below_zero(tables, base, tmp_path, capsys):
    lines = (tables / "values.csv").read_text().splitlines()
    values = [line.split(",") for line in lines[1:17]]
    rows = [f"{tables / row[0]},{(float(row[2]) - 4) / 3:.3f},{row[3]}" for row in values]
    (tmp_path / "signed.csv").write_text("\n".join(["path,valence,speaker", *rows]))
    command = ["finetune", str(tmp_path / "signed.csv"), "--scale", "-1", "1", "--base", str(base)]
    options = ["--output", str(tmp_path / "run"), "--epochs", "1", "--mode", "frozen"]
    assert main([*command, *options, "--device", "cpu"]) == 0
    assert load_model(tmp_path / "run" / "best").config.dimension_scale == (-1.0, 1.0)
    assert "are annotated from -1 to 1" in capsys.readouterr().out


def test_recordings_without_what_the_model_gives_are_not_scored(run):
    named = [Utterance("examples/audio/plain.wav", "sad")]
    with pytest.raises(ValueError, match="annotated with labels and the model gives arousal and"):
        evaluate(str(run / "best"), named)
    valued = [Utterance("examples/audio/plain.wav", dimensions={"arousal": 0.5})]
    with pytest.raises(ValueError, match="annotated with arousal and the model gives labels"):
        evaluate("emoser-tiny", valued)
