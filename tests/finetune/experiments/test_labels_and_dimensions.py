"""Several labels at once beside arousal and valence: from one table to every use of the model."""

import csv
import json

import numpy as np
import pytest
import soundfile
import torch
from sklearn.metrics import accuracy_score, f1_score
from support.models import random_clips
from support.servers import running
from support.voices import LOUD, RATE, save_voice_base, write_mixtures
from torch.nn import functional
from transformers import AutoModelForAudioClassification, Wav2Vec2FeatureExtractor

from emoser import EmotionClassifier, EmotionStream, to_frame
from emoser.checkpoints.registration import register
from emoser.checkpoints.save import load_model
from emoser.cli import main
from emoser.export import export
from emoser.finetune import FinetuneConfig, Utterance, evaluate, finetune, read_corpus
from emoser.finetune.config import Augmentation
from emoser.finetune.settings import OptimisationSettings
from emoser.finetune.training.loss import TrainingLoss, build_targets
from emoser.models.model import EmotionOutput

LABELS, NAMES = ("neutral", "happy", "sad"), ("arousal", "valence")


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Mixtures of three tones: loud ones are the labels, and two shares the values from 1 to 7."""
    folder = tmp_path_factory.mktemp("tones")
    rows = [("path", "speaker", "labels", *NAMES)]
    for index, (name, parts) in enumerate(write_mixtures(folder, 120, seed=0)):
        loud = ";".join(label for label, part in zip(LABELS, parts, strict=True) if part > LOUD)
        values = (1 + 6 * parts[[2, 1]]).round(3)
        rows.append((name, f"v{index % 6}", loud, *values))
    with (folder / "both.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return folder / "both.csv"


@pytest.fixture(scope="module")
def run(table, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    config = FinetuneConfig(
        str(save_voice_base(folder / "base")), mode="entire", epochs=16, batch_size=8,
        encoder_learning_rate=5e-3, head_learning_rate=5e-3, crop_seconds=None, masking=False,
        augmentation=Augmentation.off(),
    )  # fmt: skip
    result = finetune(read_corpus(table, scale=(1, 7)), config=config, output=folder / "run")
    return result, folder / "run"


@pytest.fixture(scope="module")
def classifier(run):
    return EmotionClassifier.from_pretrained(run[1] / "best", device="cpu", backend="torch")


@pytest.fixture(scope="module")
def call(table):
    """Eight seconds of the clips, as one recording."""
    clips = [soundfile.read(table.parent / f"{place}.wav")[0] for place in range(24)]
    soundfile.write(table.parent / "call.wav", np.concatenate(clips)[: 8 * RATE], RATE)
    return table.parent / "call.wav"


def ccc(truth, values):
    """The concordance by the formula of Lin (1989)."""
    (spread, shared), (_, other) = np.cov(truth, values, bias=True)
    return 2 * shared / (spread + other + (np.mean(truth) - np.mean(values)) ** 2)


def same(found, expected):
    """Whether scores and dimensions of two answers are equal up to rounding."""
    assert dict(found.scores) == pytest.approx(dict(expected.scores), abs=1e-5)
    assert dict(found.dimensions) == pytest.approx(dict(expected.dimensions), abs=1e-5)


def test_the_loss_is_that_of_the_labels_and_that_of_the_values():
    rows = [
        Utterance("a.wav", labels=named, dimensions={"valence": value}, scale=(1, 7))
        for named, value in ((("sad", "happy"), 6.0), ((), 2.0), (("neutral",), 3.5))
    ]
    targets = build_targets(rows, LABELS, restricted={}, dimensions=["valence"], multi_label=True)
    logits = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    loss = TrainingLoss(OptimisationSettings(dimension_weight=2.0), size=2, multi_label=True)
    wanted = torch.tensor([[0.0, 1.0, 1.0], [0.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    crossed = functional.binary_cross_entropy_with_logits(logits[:, :3], wanted)
    apart = 1 - ccc([5 / 6, 1 / 6, 2.5 / 6], logits[:, 3].numpy())
    found = loss(EmotionOutput(logits, torch.zeros(3, 2)), targets)
    assert found.item() == pytest.approx(crossed.item() + 2 * apart, abs=1e-6)


def test_labels_and_values_are_learned_and_reported(run):
    result, folder = run
    report = result.evaluation.report
    assert report.macro_f1 > 0.8
    assert min(found["ccc"] for found in report.dimensions.values()) > 0.9
    assert set(result.epochs[-1]) >= {"uar", "ccc", "training_accuracy"}
    text, card = ((folder / name).read_text() for name in ("report.md", "best/README.md"))
    for shown in ("all labels right", "macro F1", "CCC of valence", "are annotated from 1 to 7"):
        assert shown in text
    for shown in ("All labels right", "The labels are independent", "(CCC) of arousal"):
        assert shown in card
    assert (folder / "dimensions.png").is_file()


def test_transformers_loads_the_model_with_equal_numbers(run, classifier):
    folder = run[1] / "best"
    config = load_model(folder).config
    assert (config.multi_label, config.outputs) == (True, (*LABELS, *NAMES))
    register()
    theirs = AutoModelForAudioClassification.from_pretrained(folder).eval()
    clip = random_clips([RATE])[0]
    features = Wav2Vec2FeatureExtractor.from_pretrained(folder)
    with torch.inference_mode():
        logits = theirs(**features(clip, sampling_rate=RATE, return_tensors="pt")).logits[0]
    ours = classifier.predict(clip, sampling_rate=RATE)
    assert list(ours.scores.values()) == pytest.approx(logits[:3].sigmoid().tolist(), abs=1e-5)
    assert list(ours.dimensions.values()) == pytest.approx(logits[3:].tolist(), abs=1e-5)
    assert ours.label == max(ours.scores, key=ours.scores.get)


def test_the_evaluation_is_that_of_the_predictions(run, table, classifier, tmp_path, capsys):
    utterances = read_corpus(table, scale=(1, 7))
    report = evaluate(classifier, utterances, allow_trained_on=True)
    answers = classifier.predict_batch([item.path for item in utterances])
    truth = [[name in item.labels for name in LABELS] for item in utterances]
    found = [[score >= 0.5 for score in answer.scores.values()] for answer in answers]
    assert report.accuracy == pytest.approx(accuracy_score(truth, found))
    assert report.macro_f1 == pytest.approx(f1_score(truth, found, average="macro"))
    for name in NAMES:
        values = [(item.dimensions[name] - 1) / 6 for item in utterances]
        expected = ccc(values, [answer.dimensions[name] for answer in answers])
        assert report.dimensions[name]["ccc"] == pytest.approx(expected, abs=1e-6)
    model, file = str(run[1] / "best"), tmp_path / "answers.csv"
    command = ["evaluate", model, str(table), "--allow-trained-on", "--against", model, "--json"]
    assert main([*command, "--predictions", str(file)]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["report"]["accuracy"] == pytest.approx(report.accuracy)
    assert figures["comparison"]["difference"] == 0.0
    assert figures["comparison"]["dimensions"]["valence"][2] == [0.0, 0.0]
    with file.open(newline="") as opened:
        written = list(csv.DictReader(opened))
    for row, answer, item in zip(written, answers, utterances, strict=True):
        assert set(row["label"].split(";")) - {""} == set(item.labels)
        named = {name for name, score in answer.scores.items() if score >= 0.5}
        assert set(row["predicted"].split(";")) - {""} == named
        assert float(row["predicted_valence"]) == pytest.approx(
            answer.dimensions["valence"], abs=1e-6
        )
        assert float(row["true_arousal"]) == pytest.approx(item.value("arousal"), abs=1e-6)


@pytest.mark.parametrize("to", ["onnx", "openvino"])
def test_an_exported_model_has_the_same_answers_and_figures(run, table, classifier, tmp_path, to):
    pytest.importorskip(to)
    export(run[1] / "best", tmp_path / "graph", to=to)
    exported = EmotionClassifier.from_pretrained(tmp_path / "graph")
    utterances = read_corpus(table)[:40]
    for item in utterances[:8]:
        same(exported.predict(item.path), classifier.predict(item.path))
    reports = [
        evaluate(model, utterances, allow_trained_on=True)
        for model in (str(tmp_path / "graph"), classifier)
    ]
    assert reports[0].f1_by_label == reports[1].f1_by_label
    for name in NAMES:
        first, second = (report.dimensions[name]["ccc"] for report in reports)
        assert first == pytest.approx(second, abs=1e-4)


def test_timelines_and_turns_have_the_answers_of_predict(classifier, call):
    timeline = classifier.timeline(call, vad=None)
    assert (timeline.labels, timeline.dimensions) == (LABELS, NAMES)
    for window in timeline.windows:
        same(window, classifier.predict(call, start=window.start, end=window.end))
    samples, _ = soundfile.read(call, dtype="float32")
    stream = EmotionStream(classifier, sampling_rate=RATE, vad=None)
    assert [*stream.push(samples), *stream.flush()] == list(timeline.segments)
    head, *rows = timeline.to_csv().splitlines()
    assert head.split(",")[-5:] == [*LABELS, *NAMES]
    assert len(rows) == len(timeline.segments)
    turns = classifier.predict_turns(call, [(0.0, 3.0, "anna"), (3.0, 8.0, "ben")])
    for turn in turns:
        same(turn, classifier.predict(call, start=turn.start, end=turn.end))
    frame = to_frame(turns)
    assert frame["dimension_valence"].tolist() == [turn.dimensions["valence"] for turn in turns]
    assert [row["score_sad"] for row in frame.to_dict("records")] == [
        turn.scores["sad"] for turn in turns
    ]
    assert all(f"arousal {turn.dimensions['arousal']:.2f}" in str(turns) for turn in turns)
    assert timeline.plot() is not None
    assert turns.plot() is not None


def test_a_service_gives_labels_and_values(run, classifier, call):
    pytest.importorskip("fastapi")
    from emoser.serve import ServeOptions
    from emoser.serve.model import load_classifier

    options = ServeOptions(model=str(run[1] / "best"), backend="torch", device="cpu")
    spans = [(0.0, 3.0, "anna"), (3.0, 8.0, "ben")]
    named = [dict(zip(("start", "end", "speaker"), span, strict=True)) for span in spans]
    body, turns = call.read_bytes(), json.dumps(named)
    with running(load_classifier(options)) as client:
        ready = client.get("/ready").json()
        answer = client.post("/v1/predict", content=body).json()
        timeline = client.post("/v1/timeline", content=body).json()
        form = {"files": {"file": ("call.wav", body)}, "data": {"turns": turns}}
        spoken = client.post("/v1/turns", **form).json()
    assert (tuple(ready["labels"]), tuple(ready["dimensions"])) == (LABELS, NAMES)
    expected = classifier.predict(call)
    assert answer["scores"] == pytest.approx(dict(expected.scores), abs=1e-6)
    assert answer["dimensions"] == pytest.approx(dict(expected.dimensions), abs=1e-6)
    for one, other in zip(timeline["segments"], classifier.timeline(call).segments, strict=True):
        assert one["dimensions"] == pytest.approx(dict(other.dimensions), abs=1e-6)
    for one, other in zip(spoken["turns"], classifier.predict_turns(call, spans), strict=True):
        assert one["dimensions"] == pytest.approx(dict(other.dimensions), abs=1e-6)
        assert one["scores"] == pytest.approx(dict(other.scores), abs=1e-6)
