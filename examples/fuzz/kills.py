"""Kills of every command that writes: repeated after the kill, it ends as if nothing had been.

Each command runs once to its end, under strace, which lists the system calls that change its
files. Then it runs again and again in an empty folder, is killed at one of these calls, drawn at
random, and is repeated until it ends. The files must be those of the first run, with equal
contents, and no others, and no process of it may be left.
"""

import csv
import hashlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import seeds
import soundfile

NUM_RECORDINGS = 24
NUM_CALIBRATED = 110
SURE = 50.0
LONG_SECONDS = 40.0  # beyond what the service keeps in memory
MAX_SECONDS = 300
EMOSER = (sys.executable, "-m", "emoser")
UPLOADS = Path(__file__).with_name("uploads.py")
CHANGES = (
    "write", "pwrite64", "writev", "pwritev", "ftruncate", "truncate", "fallocate", "fsync",
    "rename", "renameat", "renameat2", "unlink", "unlinkat", "mkdir", "mkdirat", "rmdir", "link",
    "linkat", "symlink", "symlinkat", "chmod", "fchmod", "fchmodat", "sendfile", "copy_file_range",
)  # fmt: skip
"""System calls that change files. What is only opened or created is as after the call before."""
FOREIGN = re.compile(r"[a-z0-9_]{8}|cc\w{6}\..*")
"""Names of files that Python writes to find a folder for temporary files, and compilers for theirs;
nobody removes them if these are killed."""
CALL = re.compile(r"(?P<task>\d+) +(?P<name>\w+)\((?P<words>.*)")


class Command(NamedTuple):
    """A command that writes.

    Attributes:
        words: Program and arguments; it runs in the folder of the case.
        compared: Files whose contents must be equal, as patterns.
        copied: A folder of the inputs that it changes, copied into the case.
        printed: The file that its output goes to.
        code: Its exit code.
    """

    words: tuple[str, ...]
    compared: tuple[str, ...]
    copied: str | None = None
    printed: str = os.devnull
    code: int = 0


class Moment(NamedTuple):
    """A system call: its name, and its number among those of this name in one thread."""

    name: str
    number: int


class Whole(NamedTuple):
    """What a command does that is not killed: its files, and the calls that change them."""

    files: dict[str, str]
    moments: list[Moment]


def build_commands(inputs: Path) -> dict[str, Command]:
    """The commands by name."""
    folder, table, model, clip = (
        str(inputs / name) for name in ("voices", "voices.csv", "model", "voices/0.wav")
    )
    on_torch = ("--backend", "torch", "--device", "cpu")
    predict = (*EMOSER, "predict", folder, "--model", model, "--output")
    tuning = ("--base", model, "--device", "cpu", "--epochs", "2")
    export = (*EMOSER, "export", model, "graph", "--overwrite", "--to")
    int8 = (
        *EMOSER, "export", str(inputs / "sure"), "graph", "--overwrite", "--int8", "--calibrate",
        str(inputs / "many"), "--to",
    )  # fmt: skip
    trained = ("run/best/*", "run/report.md", "run/confusion.png")
    return {
        **{
            f"predict to {name}": Command((*predict, f"rows.{suffix}", *on_torch), (compared,))
            for name, suffix, compared in (
                ("CSV", "csv", "rows.csv"),
                ("JSON lines", "jsonl", "rows.jsonl"),
                ("Parquet", "parquet", "rows.parquet.rows.jsonl"),
            )
        },
        "predict turns": Command(
            (*EMOSER, "predict", clip, "--turns", str(inputs / "turns.csv"), "--model", model,
             *on_torch, "--format", "srt", "--plot", "turns.svg"),
            ("turns.srt",),
            printed="turns.srt",
        ),
        "timeline with a picture": Command(
            (*EMOSER, "timeline", clip, "--model", model, *on_torch, "--plot", "line.png"),
            ("line.png",),
        ),
        **{
            f"cache of {name}": Command(
                (*predict, "rows.csv", "--backend", name), ("rows.csv", "cache/graphs/*/*")
            )
            for name in ("onnx", "openvino")
        },
        "convert": Command((*EMOSER, "convert", model, "copy", "--overwrite"), ("copy/*",)),
        "export to ONNX": Command((*export, "onnx"), ("graph/*",)),
        "export to OpenVINO": Command((*export, "openvino"), ("graph/*",)),
        "int8 export to ONNX": Command((*int8, "onnx"), ("graph/*",)),
        "int8 export to OpenVINO": Command((*int8, "openvino"), ("graph/*",)),
        "card": Command(
            (*EMOSER, "card", "model", "--write", "--fresh"), ("model/*",), copied="model"
        ),
        "evaluate": Command(
            (*EMOSER, "evaluate", model, table, *on_torch, "--output", "report", "--predictions",
             "rows.csv"),
            ("report/*", "rows.csv"),
        ),
        "finetune": Command(
            (*EMOSER, "finetune", table, "--output", "run", "--mode", "entire", *tuning), trained
        ),
        "finetune above frozen convolutions": Command(
            (*EMOSER, "finetune", table, "--output", "run", "--mode", "partial", *tuning), trained
        ),
        "dry run": Command(
            (*EMOSER, "finetune", table, "--output", "run", "--dry-run", "--mode", "partial",
             *tuning),
            (),
            code=3,  # so few epochs are not enough to learn the clips by heart
        ),
        "cross-validation": Command(
            (*EMOSER, "reproduce", "PF-w2v-base", "--corpus", table, "--root", str(inputs),
             "--setting", "groups", "--folds", "3", "--output", "run", *tuning),
            ("run/summary.md", "run/report.md", "run/*/result.json"),
        ),
        "bench": Command(
            (*EMOSER, "bench", "--model", model, "--runtimes", "torch,transformers", "--rounds",
             "1", "--seconds", "0.1"),
            (),
        ),
        "serve": Command((sys.executable, str(UPLOADS), model, str(inputs / "long.wav")), ()),
    }  # fmt: skip


def write_inputs(inputs: Path) -> None:
    """Recordings of four speakers, their table, turns, recordings to calibrate on, and a model."""
    sys.path.insert(0, str(seeds.TESTS))
    from support.models import loud_model, small_config

    from emoser.checkpoints.save import save_model

    for folder, count, seconds in (("voices", NUM_RECORDINGS, 0.5), ("many", NUM_CALIBRATED, 0.3)):
        (inputs / folder).mkdir(parents=True)
        for number in range(count):
            samples = seeds.voice(seconds, seed=number)
            soundfile.write(inputs / folder / f"{number}.wav", samples, seeds.RATE)
    soundfile.write(inputs / "long.wav", seeds.voice(LONG_SECONDS), seeds.RATE)
    rows = [["path", "label", "speaker"]]
    for number in range(NUM_RECORDINGS):
        label, speaker = ("happy", "sad")[number % 2], str(number // 2 % 4)
        rows.append([f"voices/{number}.wav", label, speaker])
    turns = [["speaker", "start", "end"], ["one", "0.0", "0.2"], ["two", "0.2", "0.5"]]
    for name, lines in (("voices.csv", rows), ("turns.csv", turns)):
        with (inputs / name).open("w", newline="") as file:
            csv.writer(file).writerows(lines)
    model = loud_model(small_config())
    save_model(model, inputs / "model")
    model.head.classifier.bias[0] += SURE  # so that int8 does not change its answers
    save_model(model, inputs / "sure")
    for file in inputs.rglob("*"):  # hashes of files that have just changed are not remembered
        os.utime(file, (0, 0))


def run_kills(
    scratch: Path, end: float, num_cases: int | None, first: int
) -> Iterator[tuple[str, str]]:
    """Outcome and detail of one kill after another, until the end of the time or the cases."""
    if shutil.which("strace") is None:
        raise SystemExit("kills need strace; install the package of this name")
    inputs = scratch / "inputs"
    write_inputs(inputs)
    commands = build_commands(inputs)
    wholes: dict[str, Whole] = {}
    number = first
    while time.monotonic() < end and (num_cases is None or number < first + num_cases):
        name = list(commands)[number % len(commands)]
        command, dice = commands[name], random.Random(f"kills {number}")
        case = scratch / "case"
        try:
            if name not in wholes:
                wholes[name] = _run_whole(command, case, inputs)
            yield _kill_once(name, command, case, inputs, wholes[name], dice)
        except _BadEndError as error:
            yield error.outcome, f"{name}, {error}"
        number += 1


class _BadEndError(Exception):
    """A command that did not end well without a kill.

    Attributes:
        outcome: The outcome of the case.
    """

    def __init__(self, outcome: str, message: str) -> None:
        super().__init__(message)
        self.outcome = outcome


def _run_whole(command: Command, case: Path, inputs: Path) -> Whole:
    _prepare(case, inputs, command)
    trace = case.with_name("trace")
    _finish(_start(command, case, *_strace(CHANGES, trace)), command, case, "raw exception")
    moments = read_moments(trace, case)
    if not moments:
        raise _BadEndError("raw exception", "nothing was written")
    return Whole(_describe(case, command), moments)


def read_moments(trace: Path, case: Path) -> list[Moment]:
    """The calls of a trace that change files in a folder."""
    counts: Counter[tuple[str, str]] = Counter()
    moments = []
    with trace.open(errors="replace") as lines:
        for found in filter(None, map(CALL.match, lines)):
            key = found["task"], found["name"]
            counts[key] += 1
            if str(case) in found["words"]:
                moments.append(Moment(found["name"], counts[key]))
    return moments


def _kill_once(
    name: str, command: Command, case: Path, inputs: Path, whole: Whole, dice: random.Random
) -> tuple[str, str]:
    moment = dice.choice(whole.moments)
    detail = f"{name}, at {moment.name} {moment.number}"
    _prepare(case, inputs, command)
    trace = case.with_name("trace")
    kill = f"inject={moment.name}:signal=KILL:when={moment.number}"
    process = _start(command, case, *_strace([moment.name], trace), "-e", kill)
    try:
        process.wait(MAX_SECONDS)
    except subprocess.TimeoutExpired:
        return "left running", detail
    finally:
        _end(process)
    killed = "+++ killed by SIGKILL +++" in trace.read_text(errors="replace")
    try:
        _finish(_start(command, case), command, case, "not resumed")
    except _BadEndError as error:
        return error.outcome, f"{detail}, {error}"
    found = _describe(case, command)
    extra = sorted(set(found) - set(whole.files))
    if extra:
        return "left behind", f"{detail}: {extra}"
    other = sorted(file for file in whole.files if found.get(file) != whole.files[file])
    if other:
        return "wrong answer", f"{detail}: {other}"
    return ("as if never killed" if killed else "ended before the kill"), detail


def _strace(calls: Sequence[str], trace: Path) -> tuple[str, ...]:
    chosen = f"trace={','.join(calls)}"
    return ("strace", "-f", "-y", "-q", "-o", str(trace), "-e", chosen)


def _prepare(case: Path, inputs: Path, command: Command) -> None:
    shutil.rmtree(case, ignore_errors=True)
    case.mkdir(parents=True)
    if command.copied is not None:
        shutil.copytree(inputs / command.copied, case / command.copied)


def _start(command: Command, case: Path, *tracer: str) -> subprocess.Popen[bytes]:
    with _errors(case).open("wb") as errors, (case / command.printed).open("wb") as printed:
        return subprocess.Popen(
            (*tracer, *command.words),
            cwd=case,
            stdout=printed,
            stderr=errors,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            env={**os.environ, "TMPDIR": str(case), "EMOSER_CACHE": str(case / "cache")},
        )


def _finish(process: subprocess.Popen[bytes], command: Command, case: Path, outcome: str) -> None:
    """Wait for the end of a command, which must be a good one."""
    try:
        code: int | str = process.wait(MAX_SECONDS)
    except subprocess.TimeoutExpired:
        code = "hung"
    finally:
        _end(process)
    if code != command.code:
        said = _errors(case).read_text(errors="replace")[-300:]
        raise _BadEndError(outcome, f"{code}: {said}")


def _end(process: subprocess.Popen[bytes]) -> None:
    """End all processes of a command."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _errors(case: Path) -> Path:
    return case.with_name("errors")


def _describe(case: Path, command: Command) -> dict[str, str]:
    """Every file and folder of a case, with a hash of the contents that are compared."""
    compared = {file for pattern in command.compared for file in case.glob(pattern)}
    return {
        str(item.relative_to(case)): _hash(item) if item in compared and item.is_file() else ""
        for item in sorted(case.rglob("*"))
        if not (item.parent == case and FOREIGN.fullmatch(item.name))
    }


def _hash(file: Path) -> str:
    data = file.read_bytes()
    if file.suffix in (".csv", ".jsonl"):  # rows may come in another order
        data = b"\n".join(sorted(data.splitlines()))
    return hashlib.sha256(data).hexdigest()
