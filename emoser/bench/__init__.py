"""Measures how fast a checkpoint runs on this machine, next to the transformers pipeline.

Each engine runs in a process of its own, so that neither imports nor thread pools interfere. All
processes are started first and then measured in turns, so that other load on the machine affects
all of them alike. Ratios are taken within a round; the report holds medians over the rounds.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from statistics import median
from typing import Any, TypeAlias

from emoser.bench.machine import CLIP_SECONDS, MIXED_SECONDS
from emoser.checkpoints.resolve import DEFAULT_MODEL, find_checkpoint
from emoser.errors import DeviceError
from emoser.runtimes.opening import PACKAGES as ENGINES

BASELINE = "transformers"
PACKAGES = {**ENGINES, BASELINE: "transformers"}
PROGRAM = ("-m", "emoser.bench.worker")
BFLOAT16_ENGINES = ("torch", "openvino")

Results: TypeAlias = Sequence[Mapping[str, Any]]
"""What an engine measured in each round; empty after a failure."""


@dataclass(frozen=True)
class BenchOptions:
    """What to measure, and for how long.

    Attributes:
        model: A bundled name, a folder or a Hub id.
        folders: Exported folders, for example of int8, to measure as well.
        runtimes: Engines: "torch", "openvino", "onnx", and "transformers" for its pipeline;
            None for all that are installed.
        seconds: Duration of each measurement of an engine in a round.
        rounds: Number of rounds.

    Raises:
        ValueError: If an engine is unknown, or a number is not positive.
    """

    model: str = DEFAULT_MODEL
    folders: tuple[str, ...] = ()
    runtimes: tuple[str, ...] | None = None
    seconds: float = 1.5
    rounds: int = 3

    def __post_init__(self) -> None:
        unknown = sorted(set(self.runtimes or ()) - set(PACKAGES))
        if unknown:
            raise ValueError(f"runtime is {unknown[0]!r}; use one of {', '.join(PACKAGES)}")
        if not self.seconds > 0 or self.rounds < 1:
            raise ValueError(
                f"seconds is {self.seconds} and rounds {self.rounds}; both must be above 0"
            )


@dataclass(frozen=True)
class BenchRow:
    """The figures of one engine.

    Attributes:
        runtime: The engine.
        dtype: Precision of its arithmetic.
        model: The checkpoint or exported folder.
        real_time: Seconds of audio per second, for clips of mixed lengths.
        clips_per_second: Clips per second, for the same clips.
        latency_p50: Median latency of a single 4-s clip in seconds.
        latency_p95: 95th percentile of the same latency.
        first_seconds: Seconds from the start of the process to its first prediction.
        peak_mib: Peak memory of the process in MiB; None if the system does not report it.
        limit_share: Arithmetic rate for clips of mixed lengths as a share of the fastest matrix
            product in the same precision; None if either is unknown.
        speedup: Clips per second relative to the transformers pipeline in the same rounds; None
            if the pipeline is not measured.
        error: Why there are no figures; None if there are.
    """

    runtime: str
    dtype: str
    model: str
    real_time: float | None = None
    clips_per_second: float | None = None
    latency_p50: float | None = None
    latency_p95: float | None = None
    first_seconds: float | None = None
    peak_mib: float | None = None
    limit_share: float | None = None
    speedup: float | None = None
    error: str | None = None


@dataclass(frozen=True)
class BenchReport:
    """The result of `run_bench`.

    Attributes:
        model: The checkpoint.
        machine: Processor, cores, and native support for bfloat16 and int8.
        limits: Rate of the fastest matrix product in GFLOP per second, by precision.
        gflop_per_second: Matrix arithmetic for one second of audio in GFLOP; None if it cannot
            be counted.
        rows: One per engine.
    """

    model: str
    machine: Mapping[str, Any]
    limits: Mapping[str, float]
    gflop_per_second: float | None
    rows: tuple[BenchRow, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def run_bench(
    options: BenchOptions, *, report_step: Callable[[str], object] = lambda step: None
) -> BenchReport:
    """Measure a checkpoint on this machine.

    Args:
        options: What to measure; all engines are in memory at the same time.
        report_step: Called with a description of each step.

    Raises:
        CheckpointError: If the checkpoint is not found; likewise HubError.
        DeviceError: If the process that measures the machine fails.
    """
    workers: list[Worker] = []
    report_step("counting the arithmetic of the model")
    folder = find_checkpoint(options.model).folder
    machine = Worker({"kind": "machine", "model": str(folder)})
    try:
        if machine.error is not None:
            raise DeviceError(f"the machine could not be measured: {machine.error}")
        for row in plan_rows(options, machine.facts["machine"]):
            report_step(f"starting {row.runtime} {row.dtype} with {row.model}")
            job = {"kind": "engine", "model": row.model, "runtime": row.runtime, "dtype": row.dtype}
            workers.append(Worker(job))
        limits: list[dict[str, float]] = []
        results: list[list[dict[str, Any]]] = [[] for _ in workers]
        seconds = options.seconds
        for number in range(options.rounds):
            report_step(f"round {number + 1} of {options.rounds}")
            limits.append(machine.run(seconds=seconds / 2).get("limits", {}))
            for worker, found in zip(workers, results, strict=True):
                single = worker.run(task="single", seconds=seconds)
                found.append(single | worker.run(task="mixed", seconds=seconds))
    finally:
        for worker in (machine, *workers):
            worker.close()
    return _report(options, machine.facts, workers, results, limits)


def plan_rows(options: BenchOptions, machine: Mapping[str, Any]) -> list[BenchRow]:
    """Empty rows: all engines in float32, and in bfloat16 where engine and processor support it.

    Example:
        >>> options = BenchOptions(runtimes=("torch", "onnx"))
        >>> [row.dtype for row in plan_rows(options, {"bfloat16": True})]
        ['float32', 'float32', 'bfloat16']
    """
    runtimes = options.runtimes or tuple(
        name for name, package in PACKAGES.items() if find_spec(package) is not None
    )
    rows = [BenchRow(name, "float32", options.model) for name in runtimes]
    if machine["bfloat16"]:
        fast = [name for name in runtimes if name in BFLOAT16_ENGINES]
        rows += [BenchRow(name, "bfloat16", options.model) for name in fast]
    return rows + [BenchRow("auto", "auto", folder) for folder in options.folders]


class Worker:
    """A process that measures one engine, or the machine; see `emoser.bench.worker`.

    Attributes:
        facts: What it reported when it was ready.
        first_seconds: How long it took to get ready.
        error: Why it failed; None while it runs.
    """

    def __init__(self, job: Mapping[str, Any], *, program: Sequence[str] = PROGRAM) -> None:
        self.job = job
        self.error: str | None = None
        start = time.perf_counter()
        self.process = subprocess.Popen(
            [sys.executable, *program, json.dumps(job)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
        )
        self.facts = self._read()
        self.first_seconds = time.perf_counter() - start

    def run(self, **task: object) -> dict[str, Any]:
        """The result of a task; empty after a failure."""
        if self.error is not None:
            return {}
        with suppress(BrokenPipeError):  # there will be nothing to read
            print(json.dumps(task), file=self.process.stdin, flush=True)
        return self._read()

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.communicate()

    def _read(self) -> dict[str, Any]:
        line = self.process.stdout.readline() if self.process.stdout is not None else ""
        if not line:
            self.error = f"the process ended with code {self.process.wait()}"
            return {}
        result: dict[str, Any] = json.loads(line)
        self.error = result.get("error")
        return {} if self.error is not None else result


def _report(
    options: BenchOptions,
    facts: Mapping[str, Any],
    workers: Sequence[Worker],
    results: Sequence[Results],
    limits: Sequence[Mapping[str, float]],
) -> BenchReport:
    sides = zip(workers, results, strict=True)
    theirs = next((found for worker, found in sides if worker.job["runtime"] == BASELINE), ())
    gflop: list[float] | None = facts["gflop"]
    total = None if gflop is None else sum(gflop[1:])
    return BenchReport(
        model=options.model,
        machine=facts["machine"],
        limits={name: median(limit[name] for limit in limits) for name in sorted(limits[0])},
        gflop_per_second=None if gflop is None else gflop[0] / CLIP_SECONDS,
        rows=tuple(
            _summarise(worker, ours, theirs, limits, total)
            for worker, ours in zip(workers, results, strict=True)
        ),
    )


def _summarise(
    worker: Worker,
    ours: Results,
    theirs: Results,
    limits: Sequence[Mapping[str, float]],
    gflop: float | None,
) -> BenchRow:
    """The row of one engine, with medians over the rounds; `theirs` are of the baseline."""
    facts = {name: worker.job[name] for name in ("model", "runtime", "dtype")} | worker.facts
    if worker.error is not None:
        return BenchRow(**facts, error=worker.error)
    passes = [_passes_per_second(result) for result in ours]
    single = sorted(time for result in ours for time in result["times"])
    shares = [
        rate * gflop / limit[facts["dtype"]]
        for rate, limit in zip(passes, limits, strict=True)
        if gflop is not None and facts["dtype"] in limit
    ]
    ratios = [
        rate / _passes_per_second(other)
        for rate, other in zip(passes, theirs, strict=False)
        if other
    ]
    return BenchRow(
        **facts,
        real_time=median(passes) * sum(MIXED_SECONDS),
        clips_per_second=median(passes) * len(MIXED_SECONDS),
        latency_p50=median(single),
        latency_p95=single[round(0.95 * (len(single) - 1))],
        first_seconds=worker.first_seconds,
        peak_mib=ours[-1]["peak_mib"],
        limit_share=median(shares) if shares else None,
        speedup=median(ratios) if ratios else None,
    )


def _passes_per_second(result: Mapping[str, float]) -> float:
    """Passes over all mixed clips per second."""
    return result["passes"] / result["seconds"]
