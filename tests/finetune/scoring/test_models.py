"""Where a function of `emoser.finetune` takes a model, it takes any form of one."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import recall_score

from emoser import EmotionClassifier
from emoser.checkpoints.resolve import find_checkpoint
from emoser.checkpoints.save import load_model
from emoser.cli import main
from emoser.finetune import FinetuneConfig, Utterance, evaluate, train
from emoser.finetune.scoring.models import ScoringOptions, score_models
from emoser.labels import LABEL_SETS

TINY = "emoser-tiny"
FILES = ("plain.wav", "slow.ogg", "bright.mp3", "telephone.wav")
LABELS = ("neutral", "sad", "happy", "angry")


@pytest.fixture
def clips(pytestconfig):
    folder = pytestconfig.rootpath / "examples/audio"
    return [
        Utterance(str(folder / name), label, speaker=str(place % 2))
        for place, (name, label) in enumerate(zip(FILES, LABELS, strict=True))
    ]


def forms():
    folder = find_checkpoint(TINY).folder
    return {
        "name": TINY,
        "folder": folder,
        "classifier": EmotionClassifier.from_pretrained(TINY, backend="torch", device="cpu"),
        "torch": load_model(folder).train(),
    }


def test_evaluate_takes_every_form_of_a_model(clips):
    models = forms()
    reports = {form: evaluate(model, clips) for form, model in models.items()}
    for report in reports.values():
        assert report.confusion == reports["torch"].confusion
        assert report.calibration_error == pytest.approx(
            reports["torch"].calibration_error, abs=1e-4
        )
    assert models["torch"].training
    answers = [models["classifier"].predict(item.path).label for item in clips]
    truth = [item.label for item in clips]
    expected = recall_score(truth, answers, average="macro", zero_division=0.0)
    assert reports["name"].uar == pytest.approx(expected)
    with pytest.raises(TypeError, match="the model is a dict; pass a bundled name"):
        evaluate({}, clips)


def test_evaluate_scores_the_answers_of_a_classifier_with_other_labels(clips):
    classifier = EmotionClassifier.from_pretrained(TINY, labels="valence3")
    scores = score_models([classifier], clips, ScoringOptions("a test"))
    assert scores.evaluation.report.labels == classifier.labels
    assert [item.label for item in scores.utterances] == [
        LABEL_SETS["valence3"][item.label] for item in clips
    ]
    expected = [
        [classifier.predict(item.path).scores[label] for label in classifier.labels]
        for item in clips
    ]
    assert np.exp(scores.logits) == pytest.approx(np.array(expected), abs=1e-5)
    named = [replace(item, label=LABEL_SETS["valence3"][item.label]) for item in clips]
    assert evaluate(classifier, named) == evaluate(classifier, clips)


def test_the_command_takes_engine_and_labels_and_an_exported_folder(clips, tmp_path, capsys):
    table = tmp_path / "calls.csv"
    rows = [f"{item.path},{item.label},{item.speaker}" for item in clips]
    table.write_text("\n".join(["path,label,speaker", *rows]) + "\n")
    assert main(["export", TINY, str(tmp_path / "graph"), "--to", "onnx"]) == 0
    capsys.readouterr()
    ways = (
        [TINY, "--backend", "torch", "--device", "cpu"],
        [str(tmp_path / "graph"), "--backend", "onnx"],
    )
    printed = []
    for way in ways:
        assert main(["evaluate", way[0], str(table), *way[1:], "--protocol", "a test"]) == 0
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1]
    assert main(["evaluate", TINY, str(table), "--labels", "valence3"]) == 0
    assert "negative" in capsys.readouterr().out
    assert main(["evaluate", str(tmp_path / "graph"), str(table), "--backend", "torch"]) == 4
    assert "holds an exported onnx graph and no weights" in capsys.readouterr().err


def test_train_takes_names_for_the_model_and_its_teachers(clips, tmp_path):
    config = FinetuneConfig(mode="frozen", epochs=1, masking=False, crop_seconds=None)
    ends = []
    for place, model in enumerate((TINY, load_model(find_checkpoint(TINY).folder))):
        result = train(
            clips[::2], clips[1::2], model=model, config=config, output=tmp_path / str(place),
            device="cpu", teachers=[TINY],
        )  # fmt: skip
        ends.append(load_model(result.folder).state_dict())
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


@pytest.mark.slow
def test_a_classifier_can_be_the_base_of_settings(tmp_path):
    with pytest.raises(TypeError, match="base is a int; pass a bundled name"):
        FinetuneConfig(3)
    classifier = EmotionClassifier.from_pretrained(TINY)
    assert FinetuneConfig(classifier) == FinetuneConfig(TINY)
    classifier.save_pretrained(tmp_path / "copy")
    config = FinetuneConfig(EmotionClassifier.from_pretrained(tmp_path / "copy"))
    assert FinetuneConfig.from_dict(config.to_dict()) == config == FinetuneConfig(tmp_path / "copy")
