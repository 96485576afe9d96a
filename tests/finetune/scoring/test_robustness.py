"""Robustness and tables of answers agree with `predict` on files in these conditions."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch
from scipy.stats import pearsonr
from sklearn.metrics import balanced_accuracy_score, f1_score, recall_score
from support.voices import voice_config

from emoser import EmotionClassifier, load_audio
from emoser.checkpoints.save import build_model, save_model
from emoser.cli import main
from emoser.finetune import Utterance
from emoser.finetune.data import conditions
from emoser.finetune.scoring.robustness import measure_robustness
from emoser.finetune.scoring.shifts import ConditionResult, Robustness, Shift
from emoser.models.config import ModelConfig

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


LABELS, NAMES = ("happy", "sad"), ("arousal", "valence")


@pytest.fixture(scope="module")
def speech(speech_data):
    """Real clips of six speakers, with labels and values that stand for nothing."""
    generator = np.random.default_rng(2)
    with (speech_data / "manifest.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["corpus"] == "ravdess"]
    chosen = [row for row in rows if row["speaker"] in sorted({r["speaker"] for r in rows})[:6]]
    return [
        Utterance(
            str(speech_data / row["path"]),
            LABELS[place % 2],
            speaker=row["speaker"],
            dimensions=dict(zip(NAMES, generator.uniform(1, 7, 2), strict=True)),
            scale=(1, 7),
        )
        for place, row in enumerate(chosen[::7][:18])
    ]


def build(folder, outputs, clips):
    """A model of random weights that divides real clips into halves by each of its outputs."""
    model = build_model(voice_config(), outputs, seed=3)
    head, width = model.head.classifier, len(outputs.labels)
    samples = [torch.from_numpy(load_audio(item.path))[None] for item in clips]
    with torch.no_grad():
        rows = torch.cat([model.eval()(one).logits for one in samples])
        scale = torch.where(torch.arange(rows.shape[1]) < width, 2.0, 0.2) / rows.std(dim=0)
        head.weight *= scale[:, None]
        head.bias.copy_((head.bias - rows.quantile(0.5, dim=0)) * scale)
        head.bias[width:] += 0.5
    save_model(model, folder)
    return EmotionClassifier.from_pretrained(folder, backend="torch", device="cpu")


def ccc(truth, values):
    """The concordance by Pearson's correlation of scipy."""
    apart = (np.mean(truth) - np.mean(values)) ** 2
    spread = np.var(truth) + np.var(values) + apart
    return 2 * pearsonr(truth, values)[0] * np.std(truth) * np.std(values) / spread


@pytest.mark.parametrize(
    ("labels", "names", "several"),
    [((), NAMES, False), ((), NAMES[1:], False), (LABELS, (), True), (LABELS, NAMES, True),
     (LABELS, NAMES, False)],
    ids=["dimensions", "one dimension", "several labels", "both", "a label and dimensions"],
)  # fmt: skip
def test_every_kind_of_answer_is_scored_in_every_condition(
    speech, few, tmp_path, labels, names, several
):
    outputs = ModelConfig(labels, dimensions=names, multi_label=several)
    model = build(tmp_path / "model", outputs, speech)
    items = [
        replace(
            item,
            label="" if several or not labels else item.label,
            labels=(LABELS[:1], LABELS, (), LABELS[1:])[place % 4] if several else None,
            dimensions={name: item.dimensions[name] for name in names},
        )
        for place, item in enumerate(speech)
    ]
    found = measure_robustness(model, items, labels, dimensions=names)
    answers = {}
    for name, change in {"plain": lambda samples, _: samples, **few}.items():
        changed = [change(load_audio(item.path), None) for item in items]
        answers[name] = [model.predict(one, sampling_rate=16_000) for one in changed]
    plain = answers.pop("plain")
    flags = [[name in item.answers for name in labels] for item in items]
    values = {name: [item.value(name) for item in items] for name in names}

    def figures(answered):
        shown = {}
        chosen = [[score >= 0.5 for score in one.scores.values()] for one in answered]
        if several:
            shown["macro F1"] = f1_score(flags, chosen, average="macro", zero_division=0)
        cccs = [ccc(values[name], [one.dimensions[name] for one in answered]) for name in names]
        shown |= {f"CCC of {name}": value for name, value in zip(names, cccs, strict=True)}
        return shown | ({"mean CCC": np.mean(cccs)} if len(names) > 1 else {})

    def answer(one):
        return [score >= 0.5 for score in one.scores.values()] if several else one.label

    assert found.figures == pytest.approx(figures(plain), abs=1e-6)
    assert np.isnan(found.uar) == (not labels)
    for one in found.conditions:
        expected = figures(answers[one.name])
        assert {name: shift.value for name, shift in one.figures.items()} == pytest.approx(
            expected, abs=1e-6
        )
        for name, (value, (low, high)) in one.figures.items():
            assert low <= value - found.figures[name] <= high
        for name in names:
            pairs = zip(plain, answers[one.name], strict=True)
            moves = [abs(a.dimensions[name] - b.dimensions[name]) for a, b in pairs]
            assert one.moved[name] == pytest.approx(np.mean(moves), abs=1e-6)
        if labels:
            pairs = zip(plain, answers[one.name], strict=True)
            shares = np.mean([answer(a) != answer(b) for a, b in pairs])
            assert one.changed == pytest.approx(shares)
        if several:
            chosen = np.array([answer(one) for one in answers[one.name]])
            columns = zip(np.transpose(flags), chosen.T, strict=True)
            assert one.uar == pytest.approx(
                np.mean([balanced_accuracy_score(*pair) for pair in columns])
            )
    assert not names or any(max(one.moved.values()) > 0 for one in found.conditions)
    heads = [table[0][1] for table in found.tables]
    assert heads == [
        *["macro F1"] * several, *["UAR"] * bool(labels), *["mean CCC"] * (len(names) > 1),
        *(f"CCC of {name}" for name in names),
    ]  # fmt: skip
    assert {len(table) for table in found.tables} == {2 + len(few)}
    assert list(found.bars) == [
        *["macro F1" if several else "UAR"] * bool(labels),
        *["mean CCC" if len(names) > 1 else "CCC of valence"] * bool(names),
    ]


def test_the_warning_speaks_of_labels_and_of_values():
    figures = {"macro F1": Shift(0.5, (-0.3, -0.1)), "CCC of valence": Shift(0.6, (-0.01, 0.02))}
    one = ConditionResult("noise", 0.6, 0.25, 0.0, (-0.2, 0.0), figures, {"valence": 0.034})
    found = Robustness(0.7, (one,), figures={"macro F1": 0.7, "CCC of valence": 0.61})
    assert found.warning == (
        "What to fear most: noise (macro F1 -20.0 points, 95 % interval -30.0 to -10.0; 25 % of "
        "the answers change). No condition lowers the CCC of valence by more than 0.010."
    )
    assert [table[0][4:] for table in found.tables] == [
        ["changed answers", "silence"], [], ["change of valence"],
    ]  # fmt: skip
    assert found.tables[2][2][1:] == ["0.600", "-0.010", "-0.010 to +0.020", "0.034"]
    low = one.figures | {"CCC of valence": Shift(0.2, (-0.5, -0.3))}
    worse = Robustness(0.7, (replace(one, figures=low),), figures=found.figures)
    assert worse.warning.endswith(
        "What to fear most: noise (CCC of valence -0.410, 95 % interval -0.500 to -0.300; values "
        "change by 0.034 on average)."
    )


def test_nothing_to_score_is_refused(clips):
    with pytest.raises(ValueError, match="pass labels, dimensions, or both"):
        measure_robustness(TINY, clips)


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
