"""Robustness and tables of answers agree with `predict` on files in these conditions."""

import csv
import json

import numpy as np
import pytest
import soundfile
from sklearn.metrics import recall_score

from emoser import EmotionClassifier, load_audio
from emoser.cli import main
from emoser.finetune import Utterance
from emoser.finetune.data import conditions
from emoser.finetune.scoring.robustness import ConditionResult, Robustness, measure_robustness

TINY = "emoser-tiny"
CLIPS = {"plain.wav": "neutral", "slow.ogg": "sad", "bright.mp3": "happy", "telephone.wav": "sad"}
WANTED = ("clipping", "gain -20 dB", "8 kHz and back")


@pytest.fixture
def clips(pytestconfig):
    folder = pytestconfig.rootpath / "examples/audio"
    return [Utterance(str(folder / name), label) for name, label in CLIPS.items()]


@pytest.fixture
def few(monkeypatch):
    """Three conditions that are the same for every recording."""
    every, _ = conditions.list_conditions()
    chosen = {name: every[name] for name in WANTED}
    monkeypatch.setattr(
        "emoser.finetune.scoring.robustness.list_conditions", lambda: (chosen, ("GSM",))
    )
    return chosen


def test_a_condition_is_scored_as_predict_scores_a_file_in_it(clips, few, tmp_path):
    classifier = EmotionClassifier.from_pretrained(TINY, backend="torch", device="cpu")
    silence = tmp_path / "silence.wav"
    soundfile.write(silence, np.zeros(16_000), 16_000)
    cut = Utterance(clips[0].path, "neutral", start=0.5, end=1.5)
    items = [*clips, cut, Utterance(str(silence), "sad")]
    found = measure_robustness(classifier, items, classifier.labels)
    assert [one.name for one in found.conditions] == list(few)
    truth = [item.label for item in items]
    answers = {}
    for name, change in {"plain": lambda samples, _: samples, **few}.items():
        answers[name] = []
        for place, item in enumerate(items):
            samples = load_audio(item.path)
            if item.is_piece:
                samples = samples[8_000:24_000]
            file = tmp_path / f"{place}.wav"
            soundfile.write(file, change(samples, None), 16_000, subtype="FLOAT")
            answers[name].append(classifier.predict(file).label)
    assert found.uar == pytest.approx(recall(truth, answers["plain"]))
    for one in found.conditions:
        assert one.uar == pytest.approx(recall(truth, answers[one.name]))
        pairs = list(zip(answers["plain"], answers[one.name], strict=True))
        assert one.changed == pytest.approx(sum(a != b for a, b in pairs) / len(items))
        low, high = one.interval
        assert low <= one.uar - found.uar <= high
        assert one.silent == answers[one.name].count("silence") / len(items)
    assert found == measure_robustness(classifier, items, classifier.labels)


def recall(truth, answers):
    return recall_score(truth, answers, labels=sorted(set(truth)), average="macro")


def test_the_warning_names_what_costs_most():
    rows = [("a", 0.79, 0.1), ("b", 0.4, 0.5), ("c", 0.7, 0.2)]
    results = tuple(
        ConditionResult(name, uar, changed, 0.0, (-0.1, 0.0)) for name, uar, changed in rows
    )
    found = Robustness(0.8, results, missing=("GSM",))
    assert found.warning == (
        "What to fear most: b (UAR -40.0 points, 95 % interval -10.0 to +0.0; 50 % of the answers "
        "change) and c (UAR -10.0 points, 95 % interval -10.0 to +0.0; 20 % of the answers "
        "change). Not measured, for want of an encoder: GSM."
    )
    assert "by more than 1.0 points" in Robustness(0.8, results[:1]).warning
    assert "by more than 0.0 points" in Robustness(0.7, results[:1]).warning


def test_the_command_writes_answers_and_robustness(clips, few, tmp_path, capsys):
    table, answers, report = (tmp_path / name for name in ("calls.csv", "answers.csv", "report"))
    table.write_text("path,label\n" + "".join(f"{item.path},{item.label}\n" for item in clips))
    command = ["evaluate", TINY, str(table), "--predictions", str(answers), "--robustness"]
    assert main([*command, "--output", str(report), "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in values["robustness"]["conditions"]] == list(few)
    text = (report / "report.md").read_text()
    assert "## Robustness" in text
    assert values["robustness"]["warning"] in text
    assert (report / "robustness.png").stat().st_size > 10_000
    classifier = EmotionClassifier.from_pretrained(TINY)
    with answers.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == [item.path for item in clips]
    for row in rows:
        expected = classifier.predict(row["path"])
        assert row["predicted"] == expected.label
        assert row["label"] == CLIPS[row["path"].rpartition("/")[2]]
        for name, score in expected.scores.items():
            assert float(row[name]) == pytest.approx(score, abs=1e-5)
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "changed answers" in printed
    assert "Not measured, for want of an encoder: GSM" in printed
