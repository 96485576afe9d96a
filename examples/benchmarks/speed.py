"""Print the table of speeds: `python examples/benchmarks/speed.py --all --markdown`.

Parts: single (one clip of 4 s or 30 s, base and large), folder (files of mixed lengths and
rates), speechbrain, cold (whole processes), decoding, memory, tiny and small (bundled). Select
parts with `--parts single folder`; finished parts are stored in --state and not repeated. Each
engine runs in a process of its own and they are measured in turns, so that other load affects all
of them alike. Duration on 2 idle cores: single 4 min, folder 3 min, speechbrain, cold, decoding and
memory 1 min each, tiny and small half a minute; `--quick` takes a third. `--int8` adds the int8
graph of the base model.

For medians over several runs, store each run in a file of its own (`--state 1.json`, `--state
2.json`, `--state 3.json`) and merge them: `--merge 1.json 2.json 3.json`.
"""

import argparse
import json
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from statistics import median

from cold_start import measure_cold_starts
from decoding import measure_decoding
from folder import measure_folder
from memory_base import measure_memory
from shapes import count_seconds, write_clips, write_int8, write_model

from emoser.bench import BASELINE, BenchOptions, Worker, plan_rows
from emoser.bench.machine import describe_machine
from emoser.text import markdown_table

PROGRAM = (str(Path(__file__).with_name("worker.py")),)
SHAPES = ("base", "large")
TINY, SMALL = "emoser-tiny", "emoser-small"
BUNDLED_SECONDS = 4.0
BUNDLED_TARGETS = {
    TINY: {"torch float32": ">= 500", "openvino float32": ">= 1000"},
    SMALL: {"float32": ">= 100", "bfloat16": ">= 300"},
}
NUMBER = re.compile(r"\d+(?:\.\d+)?")


def sides_of(model: str | Path, *, int8: str | None = None) -> list[dict]:
    """The installed engines, in the precisions that the processor supports.

    ONNX Runtime needs an exported graph: bundled models have one; `prepare` writes that of base.
    """
    graph = str(model) if model in BUNDLED_TARGETS else f"{model}-onnx"
    options = BenchOptions(model=str(model), folders=() if int8 is None else (int8,))
    sides = []
    for row in plan_rows(options, describe_machine()):
        is_onnx = row.runtime == "onnx"
        if row.runtime != BASELINE and (
            not is_onnx or graph in BUNDLED_TARGETS or Path(graph).is_dir()
        ):
            place = graph if is_onnx else row.model
            sides.append({"runtime": row.runtime, "dtype": row.dtype, "model": place})
    return sides


@contextmanager
def starting(sides: list[dict]) -> Iterator[list[Worker]]:
    """Worker processes with loaded models; engines that fail are reported and left out."""
    workers = []
    try:
        for side in sides:
            worker = Worker({"kind": "engine", **side}, program=PROGRAM)
            if worker.error is None:
                workers.append(worker)
            else:
                worker.close()
                report(f"{side['runtime']} {side['dtype']} is left out: {worker.error}")
        yield workers
    finally:
        for worker in workers:
            worker.close()


def compare(sides: list[dict], seconds: float, *, rounds: int, repeats: int) -> dict[str, dict]:
    """Median time of one clip by engine, and the median of its ratios to the first engine."""
    with starting(sides) as workers:
        taken = [
            [median(time_clip(worker, seconds, repeats)) for worker in workers]
            for _ in range(rounds)
        ]
        names = [f"{worker.facts['runtime']} {worker.facts['dtype']}" for worker in workers]
    return {
        name: {
            "seconds": median(row[place] for row in taken),
            "ratio": median(row[0] / row[place] for row in taken),
        }
        for place, name in enumerate(names)
    }


def time_clip(worker: Worker, seconds: float, repeats: int) -> list[float]:
    """Times of one clip of so many seconds."""
    return worker.run(task="single", clip_seconds=seconds, seconds=0, repeats=repeats)["times"]


def prepare(shape: str, options: argparse.Namespace) -> Path:
    """Write a model, and for base its ONNX graph if the packages are installed."""
    model = write_model(shape, options.models / shape)
    graph = options.models / f"{shape}-onnx"
    if shape == "base" and find_spec("onnx") and find_spec("onnxruntime") and not graph.is_dir():
        report("exporting the base model to ONNX")
        words = [sys.executable, "-m", "emoser", "export", str(model), str(graph)]
        if subprocess.run(words, stdout=subprocess.DEVNULL).returncode:
            report("the export failed; ONNX Runtime is left out")
    return model


def run_single(options: argparse.Namespace) -> list[list[str]]:
    rows = []
    for shape in options.shapes:
        model = prepare(shape, options)
        baseline = {"runtime": "transformers", "dtype": "float32", "model": str(model)}
        int8 = options.int8 if shape == "base" else None
        for seconds in options.lengths:
            heavy = seconds > 10 or shape == "large"
            repeats = 1 if heavy and shape == "large" else 3 if heavy else 5
            report(f"single, {shape}, {seconds:g} s")
            sides = [baseline, *sides_of(model, int8=int8)]
            rounds = min(options.rounds, 2) if shape == "large" else options.rounds
            found = compare(sides, seconds, rounds=rounds, repeats=repeats)
            for name, figures in list(found.items())[1:]:
                target = {"float32": ">= 2.0 x", "bfloat16": ">= 4.0 x"}.get(name.split()[1])
                rows.append(
                    [
                        f"{shape}, one clip of {seconds:g} s, {name}",
                        f"{seconds / figures['seconds']:.1f} times real time",
                        f"{figures['ratio']:.2f} x transformers' pipeline",
                        target or ">= 6.0 x",
                    ]
                )
    return rows


def run_speechbrain(options: argparse.Namespace) -> list[list[str]]:
    model = prepare("base", options)
    baseline = {"runtime": "speechbrain", "dtype": "float32", "model": str(model)}
    found = compare([baseline, *sides_of(model)], 4.0, rounds=options.rounds, repeats=4)
    if "speechbrain float32" not in found:
        return []
    return [
        [
            f"base, one clip of 4 s, {name}",
            f"{4.0 / figures['seconds']:.1f} times real time",
            f"{figures['ratio']:.2f} x SpeechBrain's classify_batch",
            ">= 2.0 x",
        ]
        for name, figures in list(found.items())[1:]
        if name.endswith("float32")
    ]


def run_bundled(options: argparse.Namespace, *, model: str) -> list[list[str]]:
    rows = []
    clips = options.models / "bundled-clips"
    audio = count_seconds(write_clips(clips, 120))
    with starting(sides_of(model)) as workers:
        task = {"task": "files", "folder": str(clips), "count": 120, "batch": 1}
        taken = [
            [
                (median(time_clip(worker, BUNDLED_SECONDS, 20)), worker.run(**task)["times"][0])
                for worker in workers
            ]
            for _ in range(options.rounds)
        ]
        for place, worker in enumerate(workers):
            alone = BUNDLED_SECONDS / median(row[place][0] for row in taken)
            files = audio / median(row[place][1] for row in taken)
            precision = worker.facts["dtype"]
            name = f"{worker.facts['runtime']} {precision}"
            targets = BUNDLED_TARGETS[model]
            rows.append(
                [
                    f"{model}, {name}",
                    f"{alone:.0f} times real time (4-s clip)",
                    f"{files:.0f} times real time (files, decoded)",
                    targets.get(name) or targets.get(precision, ""),
                ]
            )
    return rows


def run_folder(options: argparse.Namespace) -> list[list[str]]:
    model = prepare("base", options)
    return measure_folder(
        sides_of(model, int8=options.int8),
        options.models / "clips",
        options.clips,
        starting,
        report,
    )


def run_cold(options: argparse.Namespace) -> list[list[str]]:
    return measure_cold_starts(rounds=options.rounds)


def run_decoding(options: argparse.Namespace) -> list[list[str]]:
    model = prepare("base", options)
    return measure_decoding(
        sides_of(model, int8=options.int8), starting, time_clip, rounds=options.rounds
    )


def run_memory(options: argparse.Namespace) -> list[list[str]]:
    model = prepare("base", options)
    models = {
        side["runtime"]: Path(side["model"])
        for side in sides_of(model)
        if side["dtype"] == "float32"
    }
    return measure_memory(models, minutes=(2, 10))


RUNS: dict[str, Callable[[argparse.Namespace], list[list[str]]]] = {
    "tiny": partial(run_bundled, model=TINY),
    "small": partial(run_bundled, model=SMALL),
    "single": run_single,
    "speechbrain": run_speechbrain,
    "cold": run_cold,
    "decoding": run_decoding,
    "memory": run_memory,
    "folder": run_folder,
}
PARTS = tuple(RUNS)


def report(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def merge_states(states: list[dict]) -> dict:
    """The rows that are in all runs, with medians in place of their numbers."""
    parts = {}
    for part, rows in states[0]["parts"].items():
        runs = [{row[0]: row for row in state["parts"].get(part, [])} for state in states]
        parts[part] = [
            [row[0], *(merge_cells([run[row[0]][place] for run in runs]) for place in (1, 2, 3))]
            for row in rows
            if all(row[0] in run for run in runs)
        ]
    return {**states[0], "parts": parts}


def merge_cells(cells: list[str]) -> str:
    """A cell with medians in place of its numbers."""
    columns = zip(*(NUMBER.findall(cell) for cell in cells), strict=True)
    medians = [
        f"{median(map(float, column)):.{len(column[0].partition('.')[2])}f}" for column in columns
    ]
    return NUMBER.sub(lambda _: medians.pop(0), cells[0])


def print_table(state: dict, *, markdown: bool) -> None:
    """Print the measured parts next to their targets."""
    machine = state["machine"]
    print(
        f"{machine['processor']}, {machine['cores']} cores, bfloat16 "
        f"{'yes' if machine['bfloat16'] else 'not native, left out'}, int8 "
        f"{'yes' if machine['int8'] else 'not native'}; Python {platform.python_version()}\n"
    )
    rows = [row for part in PARTS for row in state["parts"].get(part, [])]
    heads = ["what", "speed", "compared with", "target"]
    if markdown:
        print(markdown_table([heads, *rows]))
        return
    for row in [heads, *rows]:
        print(f"{row[0]:<48} {row[1]:<34} {row[2]:<38} {row[3]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--all", action="store_true", help="run all parts")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=[])
    parser.add_argument("--markdown", action="store_true")
    parser.add_argument("--quick", action="store_true", help="one round and a fifth of the clips")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clips", type=int, default=500, help="part folder: number of files")
    parser.add_argument(
        "--shapes",
        nargs="+",
        choices=SHAPES,
        default=SHAPES,
        help="part single (default: %(default)s)",
    )
    parser.add_argument(
        "--lengths",
        nargs="+",
        type=float,
        default=[4.0, 30.0],
        help="part single (default: %(default)s)",
    )
    parser.add_argument(
        "--int8",
        nargs="?",
        const="",
        help="measure int8 as well: a folder written by `emoser export --int8` from a base-size "
        "model; without a value, one is made here from random weights",
    )
    place = Path(tempfile.gettempdir()) / "emoser-speed"
    parser.add_argument("--models", type=Path, default=place, help="(default: %(default)s)")
    parser.add_argument("--state", type=Path, help="stored results (default: MODELS/state.json)")
    parser.add_argument("--fresh", action="store_true", help="ignore stored results")
    parser.add_argument("--merge", type=Path, nargs="+", help="print the medians of stored results")
    options = parser.parse_args()
    if options.merge:
        runs = [json.loads(file.read_text(encoding="utf-8")) for file in options.merge]
        print_table(merge_states(runs), markdown=options.markdown)
        return
    if options.quick:
        options.rounds, options.clips = 1, options.clips // 5
    options.models.mkdir(parents=True, exist_ok=True)
    file = options.state or options.models / "state.json"
    state = {"machine": describe_machine(), "parts": {}}
    if file.is_file() and not options.fresh:
        state = json.loads(file.read_text(encoding="utf-8"))
    if options.int8 == "":
        options.int8 = str(write_int8(prepare("base", options), options.models / "base-int8"))
    for part in PARTS if options.all else options.parts:
        if part in state["parts"]:
            report(f"{part}: measured before")
            continue
        began = time.perf_counter()
        state["parts"][part] = RUNS[part](options)
        file.write_text(json.dumps(state, indent=1), encoding="utf-8")
        report(f"{part}: {time.perf_counter() - began:.0f} s")
    print_table(state, markdown=options.markdown)


if __name__ == "__main__":
    main()
