"""The command line, as used by people and by scripts."""

import csv
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from support.models import LABELS, loud_model, small_config

import emoser
from emoser import EmotionClassifier
from emoser.checkpoints.resolve import bundled_names
from emoser.checkpoints.save import save_model
from emoser.cli import main

RATE = 16_000


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(save_model(loud_model(small_config()), tmp_path_factory.mktemp("cli") / "model"))


@pytest.fixture
def folder(tmp_path):
    """Three recordings and one file that is not audio."""
    generator = np.random.default_rng(0)
    (tmp_path / "deep").mkdir()
    for name, rate in (("a.wav", RATE), ("deep/b.flac", 44_100), ("deep/c.ogg", 8_000)):
        samples = generator.standard_normal(rate) * 0.1
        soundfile.write(tmp_path / name, samples, rate)
    (tmp_path / "notes.txt").write_text("not audio")
    return tmp_path


def run(capsys, *words):
    """Exit code, standard output and standard error of a command."""
    code = main([str(word) for word in words])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_a_folder_is_searched_and_each_line_is_one_json_object(capsys, model, folder):
    code, out, err = run(capsys, "predict", folder, "--model", model, "--json")
    rows = [json.loads(line) for line in out.splitlines()]
    assert (code, err) == (0, "")
    names = [Path(row["source"]).relative_to(folder).as_posix() for row in rows]
    assert names == ["a.wav", "deep/b.flac", "deep/c.ogg"]
    classifier = EmotionClassifier.from_pretrained(model, device="cpu")
    for row in rows:
        expected = classifier.predict(row["source"])
        assert row["label"] == expected.label
        assert row["scores"] == pytest.approx(dict(expected.scores), abs=1e-6)
    assert rows[2]["quality"] == ["narrow-band"]


def test_the_default_output_is_aligned(capsys, model, folder):
    code, out, _ = run(
        capsys, "predict", folder / "a.wav", folder / "deep/b.flac", "--model", model
    )
    lines = out.splitlines()
    assert code == 0
    assert len({line.index(" s  ") for line in lines}) == 1
    assert all(any(label in line for label in LABELS) for line in lines)


def test_csv_can_be_read_back(capsys, model, folder):
    shutil.copy(folder / "a.wav", folder / "=cmd.wav")
    (folder / "broken.wav").write_text("nothing")
    names = [str(folder / "a.wav"), str(folder / "broken.wav")]
    code, out, err = run(capsys, "predict", *names, "--model", model, "--csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert code == 3
    assert [bool(row["error"]) for row in rows] == [False, True]
    assert sum(float(rows[0][label]) for label in LABELS) == pytest.approx(1.0, abs=1e-5)
    assert "1 of 2 recordings" in err


def test_a_formula_in_a_name_is_escaped(capsys, model, folder, monkeypatch):
    shutil.copy(folder / "a.wav", folder / "=cmd.wav")
    monkeypatch.chdir(folder)
    _, out, _ = run(capsys, "predict", "=cmd.wav", "--model", model, "--csv")
    assert next(csv.DictReader(io.StringIO(out)))["source"] == "'=cmd.wav"


def test_one_bad_file_does_not_stop_the_others(capsys, model, folder):
    (folder / "bad.wav").write_text("<html>")
    names = [folder / "bad.wav", folder / "a.wav", folder / "missing.wav"]
    code, out, err = run(capsys, "predict", *names, "--model", model, "--json")
    rows = [json.loads(line) for line in out.splitlines()]
    assert code == 3
    assert ["error" in row for row in rows] == [True, False, True]
    assert "Traceback" not in err


def test_patterns_are_expanded(capsys, model, folder):
    code, out, _ = run(capsys, "predict", f"{folder}/**/*.ogg", "--model", model, "--json")
    assert code == 0
    assert len(out.splitlines()) == 1


def test_top_k_shortens_the_scores(capsys, model, folder):
    _, out, _ = run(capsys, "predict", folder / "a.wav", "--model", model, "--json", "--top-k", "2")
    assert len(json.loads(out)["scores"]) == 2


def test_labels_are_mapped_to_another_set(capsys, model, folder):
    options = ("--model", model, "--json", "--labels", "valence3")
    _, out, _ = run(capsys, "predict", folder / "a.wav", *options)
    assert set(json.loads(out)["scores"]) == {"neutral", "positive", "negative"}


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("nothing-here-*.wav",), 3, "no file matches"),
        (("FOLDER",), 3, "holds no audio file"),
        (("a.wav", "--model", "no such model"), 4, "neither a bundled checkpoint"),
        (("a.wav", "--device", "toaster"), 2, "device is 'toaster'"),
        (("a.wav", "--labels", "plutchik"), 2, "not a known set"),
        (("a.wav", "--batch-seconds", "-1"), 2, "batch_seconds"),
    ],
    ids=["pattern", "empty folder", "model", "device", "labels", "batch"],
)
def test_errors_end_in_one_sentence_and_an_exit_code(capsys, tmp_path, model, words, code, message):
    words = [str(tmp_path) if word == "FOLDER" else word for word in words]
    if "--model" not in words:
        words = [*words, "--model", model]
    found, out, err = run(capsys, "predict", *words)
    assert (found, out) == (code, "")
    assert message in err
    assert len(err.splitlines()) == 1


def test_usage_errors_exit_with_two():
    for words in ([], ["predict"], ["predict", "a.wav", "--top-k", "0"], ["dance"]):
        with pytest.raises(SystemExit) as caught:
            main(words)
        assert caught.value.code == 2


def emoser_command(*words, **options):
    command = [sys.executable, "-m", "emoser", *map(str, words)]
    return subprocess.run(command, capture_output=True, check=False, **options)


def test_standard_input_is_read(model, folder):
    with (folder / "deep" / "b.flac").open("rb") as file:
        done = emoser_command("predict", "-", "--model", model, "--json", stdin=file)
    row = json.loads(done.stdout)
    expected = EmotionClassifier.from_pretrained(model, device="cpu").predict(
        folder / "deep/b.flac"
    )
    assert done.returncode == 0
    assert row["source"] == "-"
    assert row["scores"] == pytest.approx(dict(expected.scores), abs=1e-6)


def test_a_closed_pipe_ends_quietly(model, folder):
    command = f"{sys.executable} -m emoser predict {folder} --model {model} --json | head -n 1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert len(done.stdout.splitlines()) == 1
    assert done.stderr == ""


def test_version_and_models(capsys):
    done = emoser_command("--version", text=True)
    assert done.stdout.strip() == f"emoser {emoser.__version__}"
    code, out, _ = run(capsys, "models", "--json")
    assert code == 0
    rows = [json.loads(line) for line in out.splitlines()]
    bundled = tuple(row["name"] for row in rows if row["kind"] == "bundled")
    assert bundled == bundled_names()


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1", "ascii", "utf-8"])
@pytest.mark.parametrize("form", [[], ["--csv"], ["--json"]], ids=["text", "csv", "json"])
def test_a_name_that_the_encoding_lacks_is_escaped_and_stops_nothing(
    monkeypatch, model, tmp_path, encoding, form
):
    names = ["grüße \N{GRINNING FACE} 日本.wav", "z.wav"]
    for name in names:
        soundfile.write(tmp_path / name, np.random.default_rng(0).standard_normal(RATE) * 0.1, RATE)
    (tmp_path / "x \N{GRINNING FACE}.wav").write_bytes(b"no sound")
    files = [io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in range(2)]
    monkeypatch.setattr(sys, "stdout", files[0])
    monkeypatch.setattr(sys, "stderr", files[1])
    command = ["predict", "--model", model, *form, *sorted(map(str, tmp_path.iterdir()))]
    assert main(command) == 3
    for file in files:
        file.flush()
    written = files[0].buffer.getvalue().decode(encoding)
    assert len(written.splitlines()) == 3 + ("--csv" in form)
    if encoding == "cp1252" and form == ["--csv"]:
        assert r"grüße \U0001f600 \u65e5\u672c.wav" in written
    if encoding == "utf-8" and form == ["--csv"]:
        assert names[0] in written


@pytest.mark.parametrize("command", ["predict", "timeline", "listen", "evaluate", "doctor"])
def test_a_usage_error_shows_the_usage_of_its_command(capsys, command):
    words = {"evaluate": ["model", "table.csv"], "listen": [], "doctor": []}.get(command, ["a.wav"])
    with pytest.raises(SystemExit) as exit:
        main([command, *words, "--bogus"])
    assert exit.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith(f"usage: emoser {command} ")
    assert error.endswith(f"emoser {command}: error: unrecognized arguments: --bogus\n")
