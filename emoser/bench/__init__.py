"""How fast a checkpoint runs on this machine, engine by engine, beside transformers' pipeline.

Takes `BenchOptions` and gives a `BenchReport`. Every engine is measured in a process of its own,
so that neither imports nor thread pools disturb another; all of them are started first, one
after another, and then asked in turn, round by round, so that what else the machine does falls
on all alike. Ratios are formed within a round, and medians over the rounds are told. Knows
nothing of how the figures are printed.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from statistics import median
from typing import Any

from emoser.bench.recordings import MIXED_SECONDS, SECONDS
from emoser.checkpoints.resolve import DEFAULT_MODEL, find_checkpoint
from emoser.errors import DeviceError

PEER = "transformers"
PACKAGES = {"torch": "torch", "openvino": "openvino", "onnx": "onnxruntime", PEER: "transformers"}
PROGRAM = ("-m", "emoser.bench.worker")
QUICK_IN_BFLOAT16 = ("torch", "openvino")


@dataclass(frozen=True)
class BenchOptions:
    """What is measured, and for how long.

    Attributes:
        model: A bundled name, a folder or a Hub id.
        folders: Exported folders (of int8, for example) to measure beside it.
        runtimes: Engines: "torch", "openvino", "onnx", and "transformers" for its pipeline;
            None for all that are installed.
        seconds: How long each engine works for one figure in one round.
        rounds: How often each figure is taken.
    """

    model: str = DEFAULT_MODEL
    folders: tuple[str, ...] = ()
    runtimes: tuple[str, ...] | None = None
    seconds: float = 1.5
    rounds: int = 3

    def __post_init__(self) -> None:
        """Refuse what cannot be.

        Raises:
            ValueError: If an engine is unknown, or a number is not above 0.
        """
        unknown = sorted(set(self.runtimes or ()) - set(PACKAGES))
        if unknown:
            raise ValueError(f"runtime {unknown[0]!r} is none of {', '.join(PACKAGES)}")
        if not self.seconds > 0 or self.rounds < 1:
            raise ValueError(
                f"seconds is {self.seconds} and rounds {self.rounds}; both must be above 0"
            )


@dataclass(frozen=True)
class BenchRow:
    """What one engine does on this machine.

    Attributes:
        runtime: The engine that answered.
        dtype: Precision of its arithmetic.
        model: What it loaded.
        real_time: Seconds of audio per second, over clips of mixed lengths.
        clips_per_second: Clips per second, over the same.
        latency_p50: Median time in seconds of one clip of 4 s, alone.
        latency_p95: The time that 95 % of such clips stay under.
        first_seconds: From the start of the process to its first answer.
        peak_mib: Peak memory of the process in MiB; None where the system does not tell.
        limit_share: Share of the machine's matrix limit over mixed lengths, for its precision;
            None where there is no limit to compare with.
        speedup: Clips per second against those of transformers' pipeline, in the same rounds;
            None without it.
        error: Why there are no figures, else None.
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
    """The figures of one run.

    Attributes:
        model: What was measured.
        machine: Processor, cores, and whether it multiplies in bfloat16 and int8 natively.
        limits: The fastest matrix product of each precision, in GFLOP per second.
        gflop_per_second: Matrix arithmetic that a second of audio takes, in GFLOP; None where
            it cannot be counted.
        rows: One per engine.
    """

    model: str
    machine: Mapping[str, Any]
    limits: Mapping[str, float]
    gflop_per_second: float | None
    rows: tuple[BenchRow, ...]

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Engine:
    """One thing to measure.

    Attributes:
        runtime: As in `BenchOptions`; "auto" for an exported folder.
        dtype: "float32", "bfloat16", or "auto" for what an exported folder holds.
        model: What it loads.
    """

    runtime: str
    dtype: str
    model: str


def run_bench(options: BenchOptions, *, tell: Callable[[str], None] | None = None) -> BenchReport:
    """Measure a checkpoint on this machine.

    Args:
        options: What to measure; all its engines are held in memory at once.
        tell: Called with a line about every step.

    Raises:
        CheckpointError: If the checkpoint is not there; likewise HubError.
        DeviceError: If the process that measures the machine does not run.
    """
    tell = tell or _keep_quiet
    workers: list[Worker] = []
    tell("counting what the model needs")
    gauge = Worker({"kind": "gauge", "model": str(find_checkpoint(options.model).folder)})
    try:
        if gauge.error is not None:
            raise DeviceError(f"the machine could not be measured: {gauge.error}")
        for engine in plan_engines(options, gauge.facts["machine"]):
            tell(f"starting {engine.runtime} {engine.dtype} with {engine.model}")
            workers.append(Worker({"kind": "engine", **asdict(engine)}))
        rounds = []
        for number in range(options.rounds):
            tell(f"round {number + 1} of {options.rounds}")
            rounds.append(_measure_round(gauge, workers, options.seconds))
    finally:
        for worker in (gauge, *workers):
            worker.close()
    return _report(options, gauge.facts, workers, rounds)


def plan_engines(options: BenchOptions, machine: Mapping[str, Any]) -> list[Engine]:
    """Every engine, in every precision that it is quick in on such a machine.

    Example:
        >>> options = BenchOptions(runtimes=("torch", "onnx"))
        >>> [engine.dtype for engine in plan_engines(options, {"bfloat16": True})]
        ['float32', 'float32', 'bfloat16']
    """
    runtimes = options.runtimes or tuple(
        name for name, package in PACKAGES.items() if find_spec(package) is not None
    )
    engines = [Engine(name, "float32", options.model) for name in runtimes]
    if machine["bfloat16"]:
        quick = [name for name in runtimes if name in QUICK_IN_BFLOAT16]
        engines += [Engine(name, "bfloat16", options.model) for name in quick]
    return engines + [Engine("auto", "auto", folder) for folder in options.folders]


class Worker:
    """A process that measures one engine, or the machine, and answers line by line."""

    def __init__(self, job: Mapping[str, Any], *, program: Sequence[str] = PROGRAM) -> None:
        self.job = job
        self.error: str | None = None
        began = time.perf_counter()
        self.process = subprocess.Popen(
            [sys.executable, *program, json.dumps(job)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
        )
        self.facts = self._read()
        self.first_seconds = time.perf_counter() - began

    def ask(self, **task: object) -> dict[str, Any]:
        """The answer to a task; empty once the process has failed."""
        if self.error is not None or self.process.stdin is None:
            return {}
        try:
            self.process.stdin.write(json.dumps(task) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            self.error = f"the process ended with code {self.process.wait()}"
            return {}
        return self._read()

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()

    def _read(self) -> dict[str, Any]:
        line = self.process.stdout.readline() if self.process.stdout is not None else ""
        if not line:
            self.error = f"the process ended with code {self.process.wait()}"
            return {}
        answer: dict[str, Any] = json.loads(line)
        self.error = answer.get("error")
        return {} if self.error is not None else answer


@dataclass(frozen=True)
class _Round:
    """The figures of all engines in one round, in their order; empty for those that failed."""

    limits: dict[str, float]
    alone: list[list[float]]
    mixed: list[dict[str, float]]


def _measure_round(gauge: Worker, workers: Sequence[Worker], seconds: float) -> _Round:
    """Ask every engine once for each figure, in turn."""
    limits = gauge.ask(seconds=seconds / 2).get("limits", {})
    alone, mixed = [], []
    for worker in workers:
        alone.append(list(worker.ask(task="alone", seconds=seconds).get("times", ())))
        mixed.append(worker.ask(task="mixed", seconds=seconds))
    return _Round(limits, alone, mixed)


def _report(
    options: BenchOptions,
    facts: Mapping[str, Any],
    workers: Sequence[Worker],
    rounds: Sequence[_Round],
) -> BenchReport:
    kinds = [worker.job["runtime"] for worker in workers]
    peer = kinds.index(PEER) if PEER in kinds else None
    gflop: list[float] | None = facts["gflop"]
    total = None if gflop is None else sum(gflop[1:])
    names = {name for taken in rounds for name in taken.limits}
    return BenchReport(
        model=options.model,
        machine=facts["machine"],
        limits={name: median(taken.limits[name] for taken in rounds) for name in sorted(names)},
        gflop_per_second=None if gflop is None else gflop[0] / SECONDS,
        rows=tuple(
            _summarise(worker, place, peer, rounds, total) for place, worker in enumerate(workers)
        ),
    )


def _summarise(
    worker: Worker,
    place: int,
    peer: int | None,
    rounds: Sequence[_Round],
    gflop: float | None,
) -> BenchRow:
    """The row of one engine: medians over the rounds."""
    facts = {"model": worker.job["model"], "runtime": worker.job["runtime"]}
    facts |= {"dtype": worker.job["dtype"], **worker.facts}
    if worker.error is not None:
        return BenchRow(**facts, error=worker.error)
    passes = [_passes_per_second(taken.mixed[place]) for taken in rounds]
    alone = sorted(value for taken in rounds for value in taken.alone[place])
    limits = [taken.limits.get(facts["dtype"]) for taken in rounds]
    shares = [
        rate * gflop / limit
        for rate, limit in zip(passes, limits, strict=True)
        if gflop is not None and limit is not None
    ]
    others = [taken.mixed[peer] for taken in rounds] if peer is not None else []
    ratios = [
        rate / _passes_per_second(other)
        for rate, other in zip(passes, others, strict=False)
        if other
    ]
    return BenchRow(
        **facts,
        real_time=median(passes) * sum(MIXED_SECONDS),
        clips_per_second=median(passes) * len(MIXED_SECONDS),
        latency_p50=median(alone),
        latency_p95=alone[round(0.95 * (len(alone) - 1))],
        first_seconds=worker.first_seconds,
        peak_mib=rounds[-1].mixed[place]["peak_mib"],
        limit_share=median(shares) if shares else None,
        speedup=median(ratios) if ratios else None,
    )


def _passes_per_second(figures: Mapping[str, float]) -> float:
    """How often all the mixed clips pass in a second."""
    return figures["passes"] / figures["seconds"]


def _keep_quiet(line: str) -> None:
    """Nobody wants to know."""
