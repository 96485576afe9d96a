"""`emoser bench`: measure the speed of a checkpoint on this machine."""

import argparse
import sys
from typing import TYPE_CHECKING

from emoser.cli.options import select, shared, show, value
from emoser.errors import CheckpointError
from emoser.json_text import format_json

if TYPE_CHECKING:
    from emoser.bench import BenchReport, BenchRow

DESCRIPTION = (
    "Measure every installed engine, each in its own process and in turns, next to the "
    "transformers pipeline with the same weights. All engines are loaded at the same time. Takes "
    "one to two minutes with the bundled checkpoint."
)
OPTIONS = {
    **shared("--model"),
    "--folders": value("exported folders, such as int8", nargs="+", metavar="FOLDER"),
    "--runtimes": value(
        "torch, openvino, onnx, transformers (its pipeline) (default: all installed)",
        metavar="NAME,NAME",
    ),
    "--seconds": value("duration of each measurement", 1.5),
    "--rounds": value("number of measurements, of which the median is printed", 3),
    **shared("--json"),
}
COLUMNS = (  # header, width, figure of a row, format, factor
    ("real time", 9, "real_time", "{:.1f}", 1),
    ("clips/s", 8, "clips_per_second", "{:.1f}", 1),
    ("p50 ms", 8, "latency_p50", "{:.1f}", 1000),
    ("p95 ms", 8, "latency_p95", "{:.1f}", 1000),
    ("first s", 8, "first_seconds", "{:.2f}", 1),
    ("MiB", 8, "peak_mib", "{:.0f}", 1),
    ("of limit", 9, "limit_share", "{:.0f} %", 100),
    ("speed", 9, "speedup", "{:.2f} x", 1),
)
LEGEND = (
    "real time: seconds of audio per second, clips of 0.7 to 8 s; p50, p95: latency of one 4-s "
    "clip;\nfirst: from process start to the first prediction; of limit: share of the fastest "
    "matrix product;\nspeed: clips per second relative to the transformers pipeline"
)


def run(options: argparse.Namespace) -> int:
    """Measure and print; returns 4 if no engine could run the checkpoint."""
    from emoser.bench import BenchOptions, run_bench

    names = None if options.runtimes is None else tuple(options.runtimes.split(","))
    plan = BenchOptions(
        folders=tuple(options.folders or ()),
        runtimes=names,
        **select(options, "model", "seconds", "rounds"),
    )
    report = run_bench(plan, report_step=_report_step)
    if options.json:
        print(format_json(report.to_dict()))
    else:
        _print_report(report)
    return CheckpointError.exit_code if all(row.error for row in report.rows) else 0


def _report_step(line: str) -> None:
    print(f"emoser bench: {line}", file=sys.stderr, flush=True)


def _print_report(report: "BenchReport") -> None:
    machine = report.machine
    limits = ", ".join(f"{name} {rate:.0f}" for name, rate in report.limits.items())
    need = report.gflop_per_second
    show(f"{report.model} on {machine['processor']}, {machine['cores']} cores")
    print(
        f"matrix limit in GFLOP/s: {limits}" + (f"; {need:.2f} per second of audio" if need else "")
    )
    if not machine["bfloat16"]:
        print("bfloat16 is not measured: the processor has no native support")
    cells = (f" {header:>{width}}" for header, width, *_ in COLUMNS)
    print(f"{'engine':<13} {'dtype':<9}", *cells, sep="")
    for row in report.rows:
        show(_describe(row))
    print(LEGEND)


def _describe(row: "BenchRow") -> str:
    line = f"{row.runtime:<13} {row.dtype:<9}"
    if row.error is not None:
        return f"{line} {row.error}"
    for _, width, figure, form, factor in COLUMNS:
        number = getattr(row, figure)
        shown = "-" if number is None else form.format(number * factor)
        line += f" {shown:>{width}}"
    return line
