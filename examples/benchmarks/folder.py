"""Files of mixed lengths and sampling rates, in emoser and in the transformers pipeline.

Run by `python examples/benchmarks/speed.py --parts folder [--clips 100]`. The pipeline gets its
audio from soundfile and soxr, and the fastest batch size of 1, 4 and 8 on the first files. In the
first round all lengths are new to the engines, which generate code for some of them; after five
minutes of audio ONNX Runtime and OpenVINO open the graph again, with one core for each recording.
These rounds have a figure of their own, and the medians are those of the last two. The share of the
matrix limit is that of the whole run, including decoding; the arithmetic of the model is counted on
a clip of 4 s, and the limit is measured in the same rounds.
"""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from statistics import mean, median

from shapes import count_seconds, write_clips

from emoser.bench import Worker
from emoser.bench.machine import CLIP_SECONDS

BATCHES = (1, 4, 8)
TRIAL = 16  # files on which the batch size is chosen
TARGETS = {"float32": ">= 3.0 x", "bfloat16": ">= 4.0 x"}
PART = 0.2  # of the files, measured with every engine
LIMIT_SECONDS = 2.0
NUM_NEW = 6  # rounds that have a figure of their own: five minutes of audio and more
ROUNDS = (*((False,),) * NUM_NEW, (True, False), (False, True))  # whether samples are ready


def measure_folder(
    sides: list[dict], folder: Path, count: int, starting: Callable, report: Callable
) -> list[list[str]]:
    """Rows of the table: real-time factor, speed relative to the pipeline, share of the limit.

    All engines predict a part of the files in each round. In the last rounds they do so from
    decoded samples, too, before or after the files: what decoding costs beside the model. The
    fastest engine then predicts all files.
    """
    paths = write_clips(folder, count)
    part = max(TRIAL, round(count * PART))
    report(f"folder: {count} files, {count_seconds(paths):.0f} s of audio")
    baseline = {**sides[0], "runtime": "transformers", "dtype": "float32"}
    machine = Worker({"kind": "machine", "model": sides[0]["model"]})
    with closing(machine), starting([baseline, *sides]) as workers:
        theirs, *ours = workers
        gflop = machine.facts["gflop"][0] / CLIP_SECONDS
        task = {"task": "files", "folder": str(folder), "count": part}
        trials = {
            size: theirs.run(**{**task, "count": TRIAL}, batch=size)["times"][0] for size in BATCHES
        }
        batch = min(trials, key=lambda size: trials[size])
        report(f"folder: the pipeline is fastest in batches of {batch}")
        audio = count_seconds(paths[:part])
        theirs_times, limits = [], []
        files: list[list[float]] = []  # seconds of each engine in each round
        ready: list[list[float]] = []
        for passes in ROUNDS:
            limits.append(machine.run(seconds=LIMIT_SECONDS)["limits"])
            theirs_times.append(theirs.run(**task, batch=batch)["times"][0])
            for decoded in passes:
                times = [worker.run(**task, batch=1, ready=decoded)["times"][0] for worker in ours]
                (ready if decoded else files).append(times)
        new, known, theirs_times = files[:NUM_NEW], files[NUM_NEW:], theirs_times[NUM_NEW:]
        speeds = [[audio / times[place] for times in known] for place in range(len(ours))]
        ratios = [
            median(their / times[place] for their, times in zip(theirs_times, known, strict=True))
            for place in range(len(ours))
        ]
        rows = [
            [
                f"base, {part} files of mixed lengths and rates, {name_of(worker)}",
                f"{median(speeds[place]):.1f} times real time "
                f"({audio / mean(times[place] for times in new):.1f} in the rounds before; "
                f"{decoding_ratio(known, ready, place):.2f} of the time of ready samples)",
                f"{ratios[place]:.2f} x transformers' pipeline (batches of {batch}) "
                + share_of_limit([speed * gflop for speed in speeds[place]], limits, worker),
                TARGETS.get(worker.facts["dtype"], ">= 6.0 x"),
            ]
            for place, worker in enumerate(ours)
        ]
        best = min(range(len(ours)), key=lambda place: files[-1][place])
        spent = ours[best].run(task="files", folder=str(folder), count=count, batch=1)["times"][0]
        speed = count_seconds(paths) / spent
        share = share_of_limit([speed * gflop], limits, ours[best])
        name = f"base, all {count} files, {name_of(ours[best])}"
        return [*rows, [name, f"{speed:.1f} times real time", share, ""]]


def decoding_ratio(files: list[list[float]], ready: list[list[float]], place: int) -> float:
    """Time of an engine for files relative to that for decoded samples, over the rounds."""
    return sum(times[place] for times in files) / sum(times[place] for times in ready)


def share_of_limit(rates: list[float], limits: list[dict[str, float]], worker: Worker) -> str:
    """Arithmetic rate of an engine as a share of the matrix limit; empty if that is unknown."""
    known = [limit[worker.facts["dtype"]] for limit in limits if worker.facts["dtype"] in limit]
    return f"{median(rates) / median(known):.0%} of the limit" if known else ""


def name_of(worker: Worker) -> str:
    """Engine and precision."""
    return f"{worker.facts['runtime']} {worker.facts['dtype']}"
