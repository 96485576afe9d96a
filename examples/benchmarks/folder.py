"""A folder of files of mixed lengths and rates, emoser beside transformers' pipeline.

`python examples/benchmarks/speed.py --parts folder [--clips 100]` runs it. The pipeline decodes
with soundfile and soxr, and its batch size is the quickest of 1, 4 and 8 on the first files. The
share of what the machine can multiply is that of a whole run, decoding included; the products
that the model needs are counted on a clip of 4 s, and the limit is measured in the same rounds.
"""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from statistics import median

from shapes import count_seconds, write_clips

from emoser.bench import Worker
from emoser.bench.recordings import SECONDS

BATCHES = (1, 4, 8)
TRIAL = 16  # files on which the batch size is chosen
TARGETS = {"float32": ">= 3.0 x", "bfloat16": ">= 4.0 x"}
PART = 0.2  # of the files, which all sides run
LIMIT_SECONDS = 2.0


def measure_folder(
    sides: list[dict], folder: Path, count: int, starting: Callable, tell: Callable
) -> list[list[str]]:
    """Rows of the table: times real time, against the pipeline and the limit, on the same files.

    All sides run a part of the files in each of two rounds, which gives the ratios; the quickest
    engine then runs all of them.
    """
    paths = write_clips(folder, count)
    part = max(TRIAL, round(count * PART))
    tell(f"folder: {count} files, {count_seconds(paths):.0f} s of audio")
    peer = {**sides[0], "runtime": "transformers", "dtype": "float32"}
    gauge = Worker({"kind": "gauge", "model": sides[0]["model"]})
    with closing(gauge), starting([peer, *sides]) as workers:
        theirs, *ours = workers
        gflop = gauge.facts["gflop"][0] / SECONDS
        task = {"folder": str(folder), "count": part}
        trials = {
            size: theirs.ask(**{**task, "count": TRIAL}, batch=size)["times"][0] for size in BATCHES
        }
        batch = min(trials, key=lambda size: trials[size])
        tell(f"folder: the pipeline is quickest in batches of {batch}")
        audio = count_seconds(paths[:part])
        rounds, limits = [], []
        for _ in range(2):
            limits.append(gauge.ask(seconds=LIMIT_SECONDS)["limits"])
            spent = theirs.ask(**task, batch=batch)["times"][0]
            times = [worker.ask(**task, batch=1)["times"][0] for worker in ours]
            rounds.append([(audio / time, spent / time) for time in times])
        rows = [
            [
                f"base, {part} files of mixed lengths and rates, {name_of(worker)}",
                f"{median(row[place][0] for row in rounds):.1f} times real time",
                f"{median(row[place][1] for row in rounds):.2f} x transformers' pipeline "
                f"(batches of {batch}) "
                + tell_share([row[place][0] * gflop for row in rounds], limits, worker),
                TARGETS.get(worker.facts["dtype"], ">= 6.0 x"),
            ]
            for place, worker in enumerate(ours)
        ]
        best = max(range(len(ours)), key=lambda place: rounds[-1][place][0])
        spent = ours[best].ask(folder=str(folder), count=count, batch=1)["times"][0]
        speed = count_seconds(paths) / spent
        share = tell_share([speed * gflop], limits, ours[best])
        name = f"base, all {count} files, {name_of(ours[best])}"
        return [*rows, [name, f"{speed:.1f} times real time", share, ""]]


def tell_share(rates: list[float], limits: list[dict[str, float]], worker: Worker) -> str:
    """Which part of the machine's products of matrices a side reached, where that is known."""
    known = [limit[worker.facts["dtype"]] for limit in limits if worker.facts["dtype"] in limit]
    return f"{median(rates) / median(known):.0%} of the limit" if known else ""


def name_of(worker: Worker) -> str:
    """Engine and precision."""
    return f"{worker.facts['runtime']} {worker.facts['dtype']}"
