"""What a user meets first: sentences about data that do not fit, what is left out, the report."""

import csv
import json
import logging
import time

import pytest
import torch
from support.models import small_whisper
from support.voices import voice_config, write_voices
from transformers import HubertModel, WhisperFeatureExtractor, WhisperModel

from emoser.cli import main
from emoser.errors import AudioError
from emoser.finetune import (
    FinetuneConfig,
    Utterance,
    cross_validate,
    evaluate,
    finetune,
    read_corpus,
    train,
)
from emoser.finetune import progress as progress_module
from emoser.finetune.experiments.finetuning import check_classes, choose_split, probe
from emoser.finetune.experiments.start import build_initial_model
from emoser.finetune.progress import Progress
from emoser.finetune.scoring.report import assess, to_markdown
from emoser.metrics import name_interval

QUICK = {"mode": "frozen", "epochs": 2, "masking": False}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    torch.manual_seed(1)
    HubertModel(voice_config()).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def voices(tmp_path_factory):
    """Path, label and speaker of clips of six voices, one more that is cut short, one missing."""
    folder = tmp_path_factory.mktemp("voices")
    rows = [
        (path.name, label, f"s{voice}")
        for path, label, voice in write_voices(folder, 72, num_voices=6, noise=0.02, suffix=".wav")
    ]
    (folder / "cut.wav").write_bytes(b"RIFF cut short")
    broken = [("cut.wav", "sad", "s1"), ("none.wav", "happy", "s2")]

    def write(name, chosen, header=("path", "label", "speaker")):
        with (folder / name).open("w", newline="") as file:
            csv.writer(file).writerows([header, *(row[: len(header)] for row in chosen)])
        return folder / name

    return write, rows, broken


@pytest.mark.parametrize("command", ["predict", "evaluate", "finetune", "models", "convert"])
def test_a_usage_error_shows_the_parser_of_its_own_command(command, capsys):
    arguments = {
        "predict": ["a"],
        "evaluate": ["a", "b"],
        "finetune": ["a", "--output", "b"],
        "convert": ["a", "b"],
    }
    with pytest.raises(SystemExit) as stopped:
        main([command, *arguments.get(command, []), "--bogus"])
    assert stopped.value.code == 2
    text = capsys.readouterr().err
    assert text.startswith(f"usage: emoser {command} ")
    assert "unrecognized arguments: --bogus" in text


def test_all_unreadable_clips_are_named_at_once(voices, base, tmp_path, capsys):
    write, rows, broken = voices
    table = write("broken.csv", [*rows[:20], *broken])
    utterances = read_corpus(table, check_files=False)
    message = r"2 of 22 recordings cannot be read: .*cut\.wav .*none\.wav .*--skip-unreadable"
    config = FinetuneConfig(str(base), **QUICK)
    model = build_initial_model(config, ("happy", "sad"))
    with pytest.raises(AudioError, match=message):
        evaluate(model, utterances)
    with pytest.raises(AudioError, match=message):
        finetune(utterances, config=config, output=tmp_path / "a")
    with pytest.raises(AudioError, match=message):
        cross_validate(utterances, config=config, setting="speakers", output=tmp_path / "b")
    assert main(["evaluate", "emoser-tiny", str(table)]) == 3
    assert "1 of 22 recordings are missing" in capsys.readouterr().err


@pytest.mark.slow
def test_unreadable_clips_are_left_out_and_counted(voices, base, tmp_path, capsys):
    write, rows, broken = voices
    table = write("skipped.csv", [*rows, *broken])
    utterances = read_corpus(table, check_files=False)
    config = FinetuneConfig(str(base), **QUICK)
    report = evaluate(
        build_initial_model(config, ("happy", "sad")), utterances, skip_unreadable=True
    )
    assert (report.num_utterances, report.num_unreadable) == (72, 2)
    assert "72 recordings of 6 known speakers (2 unreadable left out)" in str(report)
    note = "2 recordings left out, which cannot be read: "
    command = ["finetune", str(table), "--base", str(base), "--mode", "frozen", "--epochs", "1",
               "--skip-unreadable", "--output", str(tmp_path / "run")]  # fmt: skip
    assert main(command) == 0
    assert note in (tmp_path / "run" / "report.md").read_text()
    command = ["evaluate", "emoser-tiny", str(table), "--skip-unreadable", "--json"]
    capsys.readouterr()
    assert main(command) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["report"]["num_unreadable"] == 2
    assert found["notes"][0].startswith(note)
    done = cross_validate(
        utterances, config=config, setting="groups", num_folds=3, output=tmp_path / "folds",
        skip_unreadable=True,
    )  # fmt: skip
    assert done.pooled.notes[1].startswith(note)
    assert probe(utterances, config=config, output=tmp_path / "probe", skip_unreadable=True)


def test_nothing_readable_is_refused(base):
    model = build_initial_model(FinetuneConfig(str(base), **QUICK), ("happy", "sad"))
    with pytest.raises(AudioError, match="1 of 1 recording cannot be read"):
        evaluate(model, [Utterance("none.wav", "sad")], skip_unreadable=True)


def test_one_class_alone_is_refused(voices, base, tmp_path):
    write, rows, _ = voices
    sad = read_corpus(write("sad.csv", [row for row in rows if row[1] == "sad"]))
    config = FinetuneConfig(str(base), **QUICK)
    message = "all recordings have the label sad; training needs at least two labels"
    with pytest.raises(ValueError, match=message):
        finetune(sad, config=config, output=tmp_path)
    with pytest.raises(ValueError, match=message):
        cross_validate(sad, config=config, setting="speakers", output=tmp_path)
    with pytest.raises(ValueError, match=message):
        probe(sad, config=config, output=tmp_path)


def test_a_table_without_speakers_is_split_by_class():
    labels = ("angry", "happy", "neutral", "sad")
    clips = [Utterance(f"{number}.wav", labels[number % 4]) for number in range(48)]
    for seed in range(20):
        split = choose_split(clips, "auto", seed=seed)
        check_classes(split, labels)
        assert len(split.training) == 40
        assert sorted(item.label for item in split.test) == sorted(labels)
        assert {*split.training, *split.validation, *split.test} == set(clips)


@pytest.mark.parametrize(
    ("speakers", "message"),
    [
        ((None, "a", "b", "c"), r"the speaker of 3 of 12 recordings is missing \(0\.wav, 4\.wav"),
        (("a", "b"), r"there are 2 speakers, and a split by speakers needs three.*--split random"),
        (("a",), r"there is 1 speaker, and a split by speakers needs three"),
    ],
    ids=["partly", "two", "one"],
)
def test_speakers_that_allow_no_split_are_explained(speakers, message):
    clips = [
        Utterance(f"{number}.wav", "sad", speaker=speakers[number % len(speakers)])
        for number in range(12)
    ]
    with pytest.raises(ValueError, match=message):
        choose_split(clips, "auto")


def test_evaluate_counts_what_it_says_it_counts(voices, capsys):
    write, rows, _ = voices
    strange = [(path, "boredom" if label == "sad" else label) for path, label, _ in rows]
    table = str(write("strange.csv", strange, ("path", "label")))
    assert main(["evaluate", "emoser-tiny", table]) == 2
    text = capsys.readouterr().err
    assert "36 of 72 recordings have labels that the model lacks (boredom)" in text
    assert text.count("leave") == 1
    assert "--only-known" in text
    assert main(["evaluate", "emoser-tiny", table, "--only-known"]) == 0
    assert "left out, because the model lacks the label: 36 boredom" in capsys.readouterr().out
    nothing = write("nothing.csv", [row for row in strange if row[1] == "boredom"],
                    ("path", "label"))  # fmt: skip
    assert main(["evaluate", "emoser-tiny", str(nothing), "--only-known"]) == 2
    text = capsys.readouterr().err
    assert "none of the 36 recordings has a label that the model knows" in text
    assert "36 boredom" in text
    assert main(["evaluate", "emoser-tiny", table, "--split", "test"]) == 2
    assert "no recording has the split 'test'" in capsys.readouterr().err


def test_the_report_states_how_the_model_was_trained(voices, base, tmp_path):
    write, rows, _ = voices
    config = FinetuneConfig(str(base), **QUICK)
    finetune(read_corpus(write("fine.csv", rows)), config=config, output=tmp_path)
    training = json.loads((tmp_path / "report.json").read_text())["training"]
    assert training["base"] == str(base)
    assert training["settings"]["schedule"]["epochs"] == 2
    assert [epoch["epoch"] for epoch in training["epochs"]] == [1, 2]
    sizes = {side: facts["recordings"] for side, facts in training["split"].items()}
    assert sum(sizes.values()) == 72
    speakers = [set(facts["speakers"]) for facts in training["split"].values()]
    assert sorted(set().union(*speakers)) == [f"s{number}" for number in range(6)]
    assert sum(map(len, speakers)) == 6
    text = (tmp_path / "report.md").read_text()
    for wanted in ("## Training", "Base: ", "| epochs | 2 |", "| training |",
                   "- Training: ", "Learning curve:", "| 2 |"):  # fmt: skip
        assert wanted in text


@pytest.mark.parametrize(
    ("number", "name"),
    [(0, "95 % interval over recordings"), (1, "95 % interval over recordings"),
     (2, "range over 2 speakers, too few for an interval"), (3, "range over 3 speakers"),
     (9, "95 % interval over 9 speakers"), (None, "95 % interval over speakers")],
)  # fmt: skip
def test_an_interval_is_called_what_it_is(number, name):
    assert name_interval(number).startswith(name)


def test_a_report_of_two_speakers_speaks_of_a_range():
    clips = [Utterance(f"{n}.wav", ("sad", "happy")[n % 2], speaker=str(n // 4)) for n in range(8)]
    logits = torch.eye(2).repeat(4, 1).numpy()
    found = assess(logits, clips, ("sad", "happy"), protocol="made up")
    assert "| range over 2 speakers, too few for an interval |" in to_markdown(found, title="x")


def test_long_work_says_what_it_does_where_there_is_no_terminal(caplog, monkeypatch):
    monkeypatch.setattr(progress_module, "INTERVAL", 0.05)
    with caplog.at_level(logging.INFO):
        for number in Progress(range(3), "epoch 1 of 2, updates"):
            time.sleep(0.2 if number == 1 else 0.0)  # one long step
    assert caplog.messages.count("epoch 1 of 2, updates: 1 of 3") >= 2
    caplog.clear()
    with caplog.at_level(logging.INFO):
        for _ in range(20):  # many short works in a row
            progress = Progress([1], "short")
            progress.note = lambda: "loss 0.5"
            list(map(lambda _: time.sleep(0.01), progress))
    assert set(caplog.messages) == {"short: 0 of 1, loss 0.5"}
    assert 1 <= len(caplog.messages) <= 12


def test_the_command_prints_its_progress(voices, base, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(progress_module, "INTERVAL", 0.01)
    monkeypatch.setattr(logging.getLogger("emoser"), "handlers", [])
    write, rows, _ = voices
    command = ["finetune", str(write("said.csv", rows)), "--base", str(base), "--mode", "frozen",
               "--epochs", "1", "--output", str(tmp_path)]  # fmt: skip
    assert main(command) == 0
    lines = capsys.readouterr().err.splitlines()
    assert any(line.startswith("emoser: decoded files: ") for line in lines)


@pytest.mark.parametrize("padding", ["paper", "today"])
def test_padding_of_the_paper_needs_its_kind_of_encoder(padding, voices, tmp_path):
    write, rows, _ = voices
    WhisperModel(small_whisper()).save_pretrained(tmp_path / "base")
    WhisperFeatureExtractor().save_pretrained(tmp_path / "base")
    utterances = read_corpus(write("some.csv", rows[:12]))
    config = FinetuneConfig(str(tmp_path / "base"), wrapper=padding, epochs=1)
    model = build_initial_model(config, ("happy", "sad"))
    with pytest.raises(ValueError, match=f"padding '{padding}' is that of wav2vec 2.0.*'whisper'"):
        train(
            utterances, utterances, model=model, config=config, output=tmp_path / "run",
            share_speakers=True,
        )  # fmt: skip
