"""`emoser bench`: measure the speed of a checkpoint on this machine."""

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

from emoser.cli.options import add_options, select
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
    "real time: seconds of audio per second, clips of 0.7 to 8 s; p50, p95: latency of one 4-s "
    "clip;\nfirst: from process start to the first prediction; of limit: share of the fastest "
    "matrix product;\nspeed: clips per second relative to the transformers pipeline"
)


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """Add the sub-command to a parser."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "bench",
        help="measure the speed of a checkpoint on this machine",
        description="Measure every installed engine, each in its own process and in turns, next to "
        "the transformers pipeline with the same weights. All engines are loaded at the same "
        "time. Takes one to two minutes with the bundled checkpoint.",
    )
    add_options(parser, "--model")
    parser.add_argument(
        "--folders", nargs="+", default=[], metavar="FOLDER", help="exported folders, such as int8"
    )
    parser.add_argument(
        "--runtimes",
        metavar="NAME,NAME",
        help="torch, openvino, onnx, transformers (its pipeline) (default: all installed)",
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=1.5,
        help="duration of each measurement (default: %(default)s)",
    )
    parser.add_argument(
        "--rounds",
        type=int,
        default=3,
        help="number of measurements, of which the median is printed (default: %(default)s)",
    )
    add_options(parser, "--json")
    parser.set_defaults(run=run)
    return parser


def run(options: argparse.Namespace) -> int:
    """Measure and print; returns 4 if no engine could run the checkpoint."""
    from emoser.bench import BenchOptions, run_bench

    names = None if options.runtimes is None else tuple(options.runtimes.split(","))
    plan = BenchOptions(
        folders=tuple(options.folders),
        runtimes=names,
        **select(options, "model", "seconds", "rounds"),
    )
    report = run_bench(plan, report_step=_report_step)
    if options.json:
        print(json.dumps(report.to_dict(), ensure_ascii=False))
    else:
        _print_report(report)
    return CheckpointError.exit_code if all(row.error for row in report.rows) else 0


def _report_step(line: str) -> None:
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
        print("bfloat16 is not measured: the processor has no native support")
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
