"""A full disk ends each command with the place, what to do and code 5, and leaves nothing behind.

A limit on the size of a file stands for the full disk: both fail in the middle of a write.
"""

import io
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from emoser.checkpoints.atomic import new_folder
from emoser.cli import main
from emoser.errors import DiskError
from emoser.finetune.training.resume import save_state

resource = pytest.importorskip("resource")
CLIP = Path(__file__).parents[2] / "examples" / "audio" / "plain.wav"
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


@contextmanager
def largest_file(num_bytes):
    """Files end here, as they do where a disk is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def calls(tmp_path):
    folder = tmp_path / "calls"
    folder.mkdir()
    for number in range(6):
        shutil.copy(CLIP, folder / f"{number}.wav")
    (tmp_path / "calls.csv").write_text(
        "path,label\n" + "".join(f"calls/{number}.wav,neutral\n" for number in range(6))
    )
    return tmp_path


COMMANDS = {
    "rows": ("predict calls --output out.jsonl", "out.jsonl", 1000),
    "table": ("predict calls --output out.csv", "out.csv", 400),
    "job": ("predict calls --output out.csv", "out.csv", 10),
    "parquet": ("predict calls --output out.parquet", "out.parquet", 3000),
    "convert": ("convert emoser-tiny out", "out", 100_000),
    "onnx": ("export emoser-tiny out", "out", 100_000),
    "openvino": ("export emoser-tiny out --to openvino", "out", 100_000),
    "report": ("evaluate emoser-tiny calls.csv --output out", "out", 100),
    "picture": ("timeline calls/0.wav --plot out.png", "out.png", 1000),
}


FAST = ("rows", "convert")


@pytest.mark.parametrize(
    "words",
    [*FAST, *(pytest.param(name, marks=pytest.mark.slow) for name in COMMANDS if name not in FAST)],
)
def test_a_full_disk_is_named_and_the_command_can_be_repeated(calls, monkeypatch, capsys, words):
    command, place, num_bytes = COMMANDS[words]
    if words in ("onnx", "openvino", "parquet", "picture"):
        pytest.importorskip({"picture": "matplotlib", "parquet": "pyarrow"}.get(words, words))
    monkeypatch.chdir(calls)
    arguments = command.split()
    if arguments[0] in ("predict", "timeline"):
        arguments += ["--model", "emoser-tiny"]
    with largest_file(num_bytes):
        assert main(arguments) == 5
    said = capsys.readouterr().err
    assert f"{place} cannot be written: a file would be larger than allowed" in said
    assert not [item.name for item in calls.iterdir() if item.name.startswith(".")]
    assert not (calls / "out").is_dir() or arguments[0] == "evaluate"
    assert main(arguments) == 0
    if arguments[0] == "predict":
        assert "6 recordings" in capsys.readouterr().err


def test_a_state_of_a_training_that_does_not_fit_is_named(tmp_path):
    state = {"weights": torch.zeros(100_000)}
    with largest_file(10_000), pytest.raises(DiskError, match="step-00000002 cannot be written"):
        save_state(tmp_path, state, name="run", step=2)
    assert list((tmp_path / "states").iterdir()) == []


def test_a_runtime_error_is_only_a_full_disk_where_the_disk_is_full(tmp_path):
    with pytest.raises(RuntimeError, match="out of memory"), new_folder(tmp_path / "a"):
        raise RuntimeError("out of memory")


def shell(words, **streams):
    """A command in a shell: its code and standard error."""
    done = subprocess.run(
        f"{sys.executable} -m emoser {words}",
        shell=True,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    )
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    return done.returncode, done.stderr


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs Linux")
def test_standard_output_that_is_full_is_an_error():
    code, said = shell(f"predict {CLIP} --model emoser-tiny --json >/dev/full")
    assert code == 5
    assert said == (
        "emoser: standard output cannot be written: the disk is full; free some space and try "
        "again\n"
    )


@pytest.mark.parametrize("words", ["predict -", "timeline -", "listen -"])
def test_standard_input_that_is_closed_is_one_sentence(words, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", None)
    assert main([*words.split(), "--model", "emoser-tiny"]) == 3
    assert capsys.readouterr().err == (
        "emoser: standard input is closed; pipe a recording into the command\n"
    )


@pytest.mark.skipif(os.name == "nt", reason="needs a shell of POSIX")
def test_closed_streams_get_no_text_of_the_output(tmp_path):
    (tmp_path / "calls").mkdir()
    shutil.copy(CLIP, tmp_path / "calls")
    output = tmp_path / "out.csv"
    code, _ = shell(
        f"predict {tmp_path}/calls --output {output} --model emoser-tiny 0<&- 1>&- 2>&-"
    )
    assert code == 0
    lines = io.StringIO(output.read_text()).readlines()
    assert len(lines) == 2
    assert lines[1].startswith(str(tmp_path / "calls" / CLIP.name))
