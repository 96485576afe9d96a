"""A kill or a full disk while saving leaves the old version or the new one, never a mixture."""

import json
import os
import platform
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from support.models import loud_model, small_config

from emoser.checkpoints.atomic import new_file, new_folder, scratch_folder, write_text
from emoser.checkpoints.save import load_model, save_model
from emoser.errors import DiskError
from emoser.runtimes.cache import open_entry

WRITER = """
import itertools, sys
from dataclasses import replace
sys.path.insert(0, sys.argv[2])
from support.models import loud_model, small_config
from emoser.checkpoints.save import save_model

models = [loud_model(small_config(), seed=seed, training={"seed": seed}) for seed in (1, 2)]
print("ready", flush=True)
for model in itertools.cycle(models):
    save_model(model, sys.argv[1], overwrite=True)
"""
KILLS = 8
LEAVING = """
import os, sys
from pathlib import Path
from emoser.checkpoints.atomic import new_file
with new_file(Path(sys.argv[1])) as written:
    written.write_text("half")
    print(written.name, flush=True)
    os._exit(0)
"""


def which(folder):
    """The seed that the folder states, once its weights are found to agree with it."""
    seed = json.loads((folder / "config.json").read_text())["emoser"]["training"]["seed"]
    expected = loud_model(small_config(), seed=seed).state_dict()
    for name, tensor in load_model(folder).state_dict().items():
        assert torch.equal(tensor, expected[name]), f"{name} is not of version {seed}"
    return seed


def start_writer(folder):
    tests = str(Path(__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(folder), tests],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
    )
    assert writer.stdout.readline() == b"ready\n"
    return writer


@pytest.mark.slow
def test_a_kill_at_any_moment_leaves_a_whole_version(tmp_path):
    folder = tmp_path / "model"
    seen = set()
    for kill in range(KILLS):
        save_model(loud_model(small_config(), seed=1, training={"seed": 1}), folder, overwrite=True)
        writer = start_writer(folder)
        time.sleep(0.1 + 0.017 * kill)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        seen.add(which(folder))
    save_model(loud_model(small_config(), seed=2, training={"seed": 2}), folder, overwrite=True)
    assert which(folder) == 2
    assert [item.name for item in tmp_path.iterdir()] == ["model"], "leftovers are cleared"
    print(f"{KILLS} kills left versions {sorted(seen)}")


def write(folder, text):
    (folder / "text").write_text(text)


def texts(place):
    return {item.name: (item / "text").read_text() for item in place.iterdir()}


def leave(place, name, process, *, machine="", days=0):
    """What a killed process leaves beside a folder or file."""
    machine = machine or re.sub(r"\W", "", platform.node())
    item = place / f".{name}.saving-{machine}-{process}-abcd1234"
    item.mkdir(parents=True)
    (item / "model.onnx").write_text("half")
    for part in (item / "model.onnx", item):
        os.utime(part, (time.time() - 86_400 * days,) * 2)
    return item


def test_leftovers_of_dead_processes_go_and_those_of_living_ones_stay(tmp_path):
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"],
                          capture_output=True, text=True, check=True)  # fmt: skip
    gone = [
        leave(tmp_path, "model", dead.stdout.strip()),
        leave(tmp_path, "model", 1, machine="container", days=2),
    ]
    kept = [
        leave(tmp_path, "model", os.getpid()),
        leave(tmp_path, "model", 2, machine="container"),
        leave(tmp_path, "other", dead.stdout.strip()),
    ]
    with new_folder(tmp_path / "model") as folder:
        write(folder, "new")
    assert [item.exists() for item in gone] == [False, False]
    assert [item.exists() for item in kept] == [True, True, True]


def test_the_cache_is_rid_of_killed_builds_of_any_model(tmp_path, monkeypatch):
    monkeypatch.setenv("EMOSER_CACHE", str(tmp_path))
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"],
                          capture_output=True, text=True, check=True)  # fmt: skip
    left = leave(tmp_path / "graphs", "0123", dead.stdout.strip())
    with open_entry("4567", lambda folder: write(folder, "graph")) as entry:
        assert (entry.folder / "text").read_text() == "graph"
    assert not left.exists()


def test_a_file_replaces_a_link_and_not_what_it_points_to(tmp_path):
    (tmp_path / "target").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    with new_file(tmp_path / "link") as file:
        file.write_text("new")
    assert [(tmp_path / name).read_text() for name in ("link", "target")] == ["new", "mine"]
    with suppress(KeyError), new_file(tmp_path / "link") as file:
        file.write_text("half")
        raise KeyError
    assert sorted(item.name for item in tmp_path.iterdir()) == ["link", "target"]


@pytest.mark.parametrize("system", ["Linux", "Darwin"])
def test_of_two_writers_at_once_the_last_to_finish_stays(system, tmp_path, monkeypatch):
    monkeypatch.setattr("platform.system", lambda: system)
    for before in (False, True):
        place = tmp_path / str(before)
        if before:
            with new_folder(place / "model") as folder:
                write(folder, "old")
        with ExitStack() as second, ExitStack() as first:
            for stack, text in ((second, "second"), (first, "first")):
                write(stack.enter_context(new_folder(place / "model", overwrite=True)), text)
            first.close()
            assert "first" in texts(place).values()
        assert texts(place) == {"model": "second"}


def test_a_version_that_a_killed_writer_moved_aside_is_restored(tmp_path, monkeypatch):
    monkeypatch.setattr("platform.system", lambda: "Darwin")
    monkeypatch.setattr("emoser.checkpoints.atomic.is_alive", lambda process: False)
    with new_folder(tmp_path / "model") as folder:
        write(folder, "old")
        left = folder.name
    (tmp_path / "model").rename(tmp_path / f"{left}-old")
    (tmp_path / left).mkdir()
    with pytest.raises(FileExistsError), new_folder(tmp_path / "model"):
        pass
    assert texts(tmp_path) == {"model": "old"}


def test_a_full_disk_leaves_the_old_version(tmp_path):
    """A limit on the size of a file stands for the full disk: both raise OSError."""
    folder = tmp_path / "model"
    save_model(loud_model(small_config(), seed=1, training={"seed": 1}), folder)
    before = load_file(folder / "model.safetensors")
    code = (
        "import resource, signal, sys\n"
        "sys.path.insert(0, sys.argv[2])\n"
        "from support.models import loud_model, small_config\n"
        "from emoser.checkpoints.save import save_model\n"
        "model = loud_model(small_config(), seed=2, training={'seed': 2})\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "try:\n"
        "    save_model(model, sys.argv[1], overwrite=True)\n"
        "except Exception as error:\n"
        "    print(type(error).__name__)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder), str(Path(__file__).parents[1])],
        capture_output=True,
        text=True,
        env=environment,
        check=True,
    )
    assert done.stdout.strip() == "DiskError"
    assert [item.name for item in tmp_path.iterdir()] == ["model"]
    for name, tensor in load_file(folder / "model.safetensors").items():
        assert torch.equal(tensor, before[name]), name


def test_scratch_folders_of_killed_processes_go_and_others_stay(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with scratch_folder() as folder:
        mine, number = folder.name.split(f"{os.getpid()}-")
    dead = subprocess.run(["sh", "-c", "echo $$"], capture_output=True, text=True, check=True)
    numbers = (dead.stdout.strip(), "9" * 30, os.getpid(), os.getppid())
    folders = [tmp_path / f"{mine}{process}-{number}" for process in numbers]
    folders.append(tmp_path / f"emoser-elsewhere-{dead.stdout.strip()}-{number}")
    for folder in folders:
        folder.mkdir()
        (folder / "call.wav").touch()
    (tmp_path / f"{mine}{dead.stdout.strip()}-link").symlink_to(folders[2])
    with scratch_folder() as folder:
        assert folder.parent == tmp_path
    assert [folder.exists() for folder in folders] == [False, False, True, True, True]
    assert (folders[2] / "call.wav").exists()
    assert not folder.exists()


@pytest.mark.parametrize(
    ("chosen", "message", "named"),
    [(".", "Is a directory", "."), ("file/x", "File exists", "file"),
     ("n" * 300, "File name too long", "n" * 300)],
    ids=["a folder", "below a file", "a long name"],
)  # fmt: skip
def test_errors_name_what_the_user_chose(chosen, message, named, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=message) as error:
        write_text(tmp_path / chosen, "")
    assert error.value.filename == str(tmp_path / named)


def test_long_names_are_written_and_their_leftovers_go(tmp_path):
    name = 80 * "ä"
    left = tmp_path / subprocess.run(
        [sys.executable, "-c", LEAVING, str(tmp_path / name)],
        capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    assert left.exists()
    write_text(tmp_path / name, "new")
    with new_folder(tmp_path / f"{name}s") as folder:
        (folder / "file").touch()
    assert sorted(item.name for item in tmp_path.iterdir()) == [name, f"{name}s"]


def test_a_pipe_is_written_and_not_replaced(tmp_path):
    pipe = tmp_path / "rows.csv"
    os.mkfifo(pipe)
    with ThreadPoolExecutor() as threads:
        read = threads.submit(pipe.read_text)
        write_text(pipe, "path,label\n")
        assert read.result() == "path,label\n"
    assert pipe.is_fifo()


def test_a_device_is_written_and_not_replaced():
    with pytest.raises(DiskError, match="/dev/full cannot be written: the disk is full"):
        write_text(Path("/dev/full"), "path,label\n")
    assert Path("/dev/full").is_char_device()
