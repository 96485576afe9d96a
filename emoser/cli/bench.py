"""`emoser bench`: how fast a checkpoint runs on this machine."""

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

from emoser.checkpoints.resolve import DEFAULT_MODEL
from emoser.errors import CheckpointError
from emoser.text import printable

if TYPE_CHECKING:
    from emoser.bench import BenchReport, BenchRow

COLUMNS = "{:<13} {:<9} {:>9} {:>8} {:>8} {:>8} {:>8} {:>8} {:>9} {:>9}"
HEADER = (
    "engine",
    "dtype",
    "real time",
    "clips/s",
    "p50 ms",
    "p95 ms",
    "first s",
    "MiB",
    "of limit",
    "speed",
)
LEGEND = (
    "real time: seconds of audio per second, clips of 0.7 to 8 s; p50, p95: one clip of 4 s "
    "alone; first: from\nthe start of the process to its first answer; of limit: share of the "
    "fastest matrix product; speed: clips\nper second against transformers' pipeline"
)


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """Add the sub-command to a parser."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "bench",
        help="measure the speed of a checkpoint on this machine",
        description="Measure every engine that is installed, each in a process of its own and in "
        "turn, beside transformers' pipeline on the same weights. All engines are held in memory "
        "at once. A minute or two with the bundled checkpoint.",
    )
    parser.add_argument(
        "--model", default=DEFAULT_MODEL, help="bundled name, folder or Hub id (%(default)s)"
    )
    parser.add_argument(
        "--folders", nargs="+", default=[], metavar="FOLDER", help="exported folders, such as int8"
    )
    parser.add_argument(
        "--runtimes",
        metavar="NAME,NAME",
        help="of torch, openvino, onnx and transformers (its pipeline); all that are installed",
    )
    parser.add_argument(
        "--seconds", type=float, default=1.5, help="for each figure in each round (%(default)s)"
    )
    parser.add_argument("--rounds", type=int, default=3, help="medians of so many (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)
    return parser


def run(options: argparse.Namespace) -> int:
    """Measure and print; 4 when no engine could run the checkpoint."""
    from emoser.bench import BenchOptions, run_bench

    names = None if options.runtimes is None else tuple(options.runtimes.split(","))
    plan = BenchOptions(
        model=options.model,
        folders=tuple(options.folders),
        runtimes=names,
        seconds=options.seconds,
        rounds=options.rounds,
    )
    report = run_bench(plan, tell=_tell)
    if options.json:
        print(json.dumps(report.to_dict(), ensure_ascii=False))
    else:
        _print_report(report)
    return CheckpointError.exit_code if all(row.error for row in report.rows) else 0


def _tell(line: str) -> None:
    print(f"emoser bench: {line}", file=sys.stderr, flush=True)


def _print_report(report: "BenchReport") -> None:
    machine = report.machine
    limits = ", ".join(f"{name} {rate:.0f}" for name, rate in report.limits.items())
    need = report.gflop_per_second
    print(f"{report.model} on {machine['processor']}, {machine['cores']} cores")
    print(
        f"matrix limit in GFLOP/s: {limits}" + (f"; {need:.2f} per second of audio" if need else "")
    )
    if not machine["bfloat16"]:
        print("bfloat16 is left out: the processor does not multiply in it")
    print(COLUMNS.format(*HEADER))
    for row in report.rows:
        print(_describe(row))
    print(LEGEND)


def _describe(row: "BenchRow") -> str:
    if row.error is not None:
        return f"{row.runtime:<13} {row.dtype:<9} {printable(row.error)}"
    return COLUMNS.format(
        row.runtime,
        row.dtype,
        _format(row.real_time, "{:.1f}"),
        _format(row.clips_per_second, "{:.1f}"),
        _format(row.latency_p50, "{:.1f}", 1000),
        _format(row.latency_p95, "{:.1f}", 1000),
        _format(row.first_seconds, "{:.2f}"),
        _format(row.peak_mib, "{:.0f}"),
        _format(row.limit_share, "{:.0f} %", 100),
        _format(row.speedup, "{:.2f} x"),
    )


def _format(value: float | None, form: str, scale: float = 1.0) -> str:
    return "-" if value is None else form.format(value * scale)
