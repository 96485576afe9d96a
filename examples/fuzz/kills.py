"""Kills of every command that writes: repeated after the kill, it ends as if nothing had been.

Each command runs once to its end. Then it runs again and again in an empty folder, is killed
at a random time, and is repeated until it ends. The files must be those of the first run, with
equal contents, and no others.
"""

import csv
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import seeds
import soundfile

NUM_RECORDINGS = 24
MAX_SECONDS = 300
EMOSER = (sys.executable, "-m", "emoser")


class Command(NamedTuple):
    """A command that writes.

    Attributes:
        words: Its words; it runs in the folder of the case.
        compared: Files whose contents must be equal, as patterns.
        copied: A folder of the inputs that it changes, copied into the case.
    """

    words: tuple[str, ...]
    compared: tuple[str, ...]
    copied: str | None = None


def build_commands(inputs: Path) -> dict[str, Command]:
    """The commands by name."""
    folder, table, model = (str(inputs / name) for name in ("voices", "voices.csv", "model"))
    predict = ("predict", folder, "--model", "emoser-tiny", "--backend", "torch", "--output")
    tuning = ("--base", model, "--mode", "entire", "--epochs", "3", "--device", "cpu")
    return {
        "predict to CSV": Command((*predict, "rows.csv"), ("rows.csv",)),
        "predict to JSON lines": Command((*predict, "rows.jsonl"), ("rows.jsonl",)),
        "predict to Parquet": Command((*predict, "rows.parquet"), ("rows.parquet.rows.jsonl",)),
        "convert": Command(("convert", model, "copy", "--overwrite"), ("copy/*",)),
        "export": Command(("export", model, "graph", "--overwrite"), ("graph/*",)),
        "card": Command(("card", "model", "--write", "--fresh"), ("model/*",), "model"),
        "evaluate": Command(("evaluate", model, table, "--output", "report"), ("report/*.md",)),
        "finetune": Command(
            ("finetune", table, "--output", "run", *tuning), ("run/best/model.safetensors",)
        ),
    }


def write_inputs(inputs: Path) -> None:
    """Recordings of three speakers, their table, and a small model."""
    sys.path.insert(0, str(seeds.TESTS))
    from support.models import loud_model, small_config

    from emoser.checkpoints.save import save_model

    (inputs / "voices").mkdir(parents=True)
    rows = [["path", "label", "speaker"]]
    for number in range(NUM_RECORDINGS):
        name = f"voices/{number}.wav"
        soundfile.write(inputs / name, seeds.voice(0.5, seed=number), seeds.RATE)
        rows.append([name, ("happy", "sad")[number % 2], str(number // 2 % 4)])
    with (inputs / "voices.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    save_model(loud_model(small_config()), inputs / "model")


def run_kills(scratch: Path, end: float, num_cases: int | None) -> Iterator[tuple[str, str]]:
    """Outcome and detail of one kill after another, until the end of the time or the cases."""
    inputs = scratch / "inputs"
    write_inputs(inputs)
    commands = build_commands(inputs)
    wholes: dict[str, tuple[dict[str, str], float]] = {}
    number = 0
    while time.monotonic() < end and (num_cases is None or number < num_cases):
        name = list(commands)[number % len(commands)]
        command = commands[name]
        if name not in wholes:
            case = _prepare(scratch / "whole", inputs, command)
            began = time.monotonic()
            if _start(command, case).wait(MAX_SECONDS) != 0:
                yield "raw exception", f"{name}: {_read_errors(case)}"
                number += 1
                continue
            wholes[name] = _describe(case, command), time.monotonic() - began
        outcome = _kill_once(name, command, scratch, inputs, wholes[name], random.Random(number))
        yield outcome
        number += 1


def _kill_once(
    name: str,
    command: Command,
    scratch: Path,
    inputs: Path,
    whole: tuple[dict[str, str], float],
    dice: random.Random,
) -> tuple[str, str]:
    expected, seconds = whole
    case = _prepare(scratch / "case", inputs, command)
    process = _start(command, case)
    moment = dice.uniform(0.3, 1.0) * seconds
    try:
        process.wait(moment)
        killed = False
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        killed = True
    detail = f"{name}, after {moment:.1f} of {seconds:.1f} s"
    if _start(command, case).wait(MAX_SECONDS) != 0:
        return "not resumed", f"{detail}: {_read_errors(case)}"
    found = _describe(case, command)
    extra, missing = sorted(set(found) - set(expected)), sorted(set(expected) - set(found))
    if extra:
        return "left behind", f"{detail}: {extra}"
    other = sorted(file for file in expected if found.get(file) != expected[file])
    if missing or other:
        return "wrong answer", f"{detail}: {missing or other}"
    return ("as if never killed" if killed else "ended before the kill"), detail


def _prepare(case: Path, inputs: Path, command: Command) -> Path:
    shutil.rmtree(case, ignore_errors=True)
    case.mkdir(parents=True)
    if command.copied is not None:
        shutil.copytree(inputs / command.copied, case / command.copied)
    return case


def _start(command: Command, case: Path) -> subprocess.Popen[bytes]:
    errors = case.with_name(f"{case.name}.errors")
    with errors.open("wb") as file:
        return subprocess.Popen(
            (*EMOSER, *command.words),
            cwd=case,
            stdout=subprocess.DEVNULL,
            stderr=file,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            env={**os.environ, "TMPDIR": str(case), "EMOSER_CACHE": str(case.parent / "cache")},
        )


def _read_errors(case: Path) -> str:
    return case.with_name(f"{case.name}.errors").read_text(errors="replace")[-300:]


def _describe(case: Path, command: Command) -> dict[str, str]:
    """Every file of a case, with a hash of its contents if these are compared."""
    compared = {file for pattern in command.compared for file in case.glob(pattern)}
    return {
        str(file.relative_to(case)): _hash(file) if file in compared else ""
        for file in sorted(case.rglob("*"))
        if file.is_file()
    }


def _hash(file: Path) -> str:
    data = file.read_bytes()
    if file.suffix in (".csv", ".jsonl"):  # rows may come in another order
        data = b"\n".join(sorted(data.splitlines()))
    return hashlib.sha256(data).hexdigest()
