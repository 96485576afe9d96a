"""Damaged files and kills, for as many minutes as chosen: what came of each, as a table.

    python examples/fuzz/fuzz.py --minutes 60
    python examples/fuzz/fuzz.py --minutes 10 --parts audio checkpoints exports kills
    python examples/fuzz/fuzz.py --count 50 --parts audio

Recordings in all formats, checkpoints of every layout, exported folders and cached graphs are
damaged at random, with fixed seeds: the same case is the same damage on every machine. Each case
must end in the right answer or in one of emoser's errors, within limits of memory and time, and
leave no file and no connection behind. Commands that write are killed at one of the system calls
that change their files (strace must be installed) and repeated; those kills that came too late are
counted apart. The exit code is 1 if a case ended in anything else; its number and what was done are
printed.
"""

import argparse
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from kills import run_kills

WORKER = Path(__file__).with_name("worker.py")
PARTS = ("audio", "checkpoints", "exports", "kills")
ALLOWED = ("answered", "refused", "as if never killed", "ended before the kill")
STARTING_SECONDS = 600  # imports, and the seeds of a part
CASE_SECONDS = 60
SHOWN = 20  # cases that are printed at the end of each part


def main() -> None:
    """Run the parts one after another and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0, help="for all parts together")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--count", type=int, help="at most as many cases of each part")
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    options = parser.parse_args()
    faults = 0
    print("| part | cases | minutes | outcomes |\n|---|---|---|---|", flush=True)
    for part in options.parts:
        began = time.monotonic()
        end = began + 60 * options.minutes / len(options.parts)
        with tempfile.TemporaryDirectory(prefix="emoser-fuzz-") as place:
            if part == "kills":
                outcomes = list(run_kills(Path(place), end, options.count, options.first))
            else:
                outcomes = list(run_cases(part, Path(place), end, options.count, options.first))
        print(_row(part, outcomes, minutes=f"{(time.monotonic() - began) / 60:.1f}"), flush=True)
        if part == "kills":
            names = sorted({detail.partition(",")[0] for _, detail in outcomes})
            for name in names:
                chosen = [item for item in outcomes if item[1].partition(",")[0] == name]
                print(_row(f"kills: {name}", chosen))
        strange = [f"{name}: {detail}" for name, detail in outcomes if name not in ALLOWED]
        print(*strange[:SHOWN], sep="\n", end="\n" if strange else "", file=sys.stderr)
        faults += len(strange)
    sys.exit(1 if faults else 0)


def _row(name: str, outcomes: Sequence[tuple[str, str]], *, minutes: str = "") -> str:
    counts = Counter(outcome for outcome, _ in outcomes)
    listed = ", ".join(f"{outcome} {count:,}" for outcome, count in counts.most_common())
    return f"| {name} | {len(outcomes):,} | {minutes} | {listed} |"


def run_cases(
    part: str, place: Path, end: float, num_cases: int | None, first: int
) -> Iterator[tuple[str, str]]:
    """Outcome and detail of the cases of a part; a process that ends is started again."""
    last = None if num_cases is None else first + num_cases
    number, failed = first, False
    while time.monotonic() < end and (last is None or number < last):
        for line in _lines(part, place, number, end):
            if isinstance(line, str):
                yield line, f"case {number}"
                number, failed = number + 1, True
            elif "case" in line:
                yield line["outcome"], f"case {line['case']}: {line['detail']}"
                number, failed = line["case"] + 1, False
            if last is not None and number >= last:
                break
        else:
            if not failed and time.monotonic() < end:
                raise RuntimeError(f"the worker of {part} ended: {_tail(place / 'errors')}")


def _lines(part: str, place: Path, number: int, end: float) -> Iterator[dict | str]:
    """The lines of one worker; the outcome in words if a case ends or blocks it."""
    scratch = place / f"scratch-{number}"
    scratch.mkdir()
    command = [sys.executable, str(WORKER), part, str(place / "seeds"), str(scratch), str(number)]
    with (place / "errors").open("wb") as errors:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, env=_environment()
        )
    received: queue.Queue[str | None] = queue.Queue()
    threading.Thread(target=_forward, args=(process, received), daemon=True).start()
    running = False
    try:
        while time.monotonic() < end or running:
            text = received.get(timeout=CASE_SECONDS if running else STARTING_SECONDS)
            if text is None:
                if running:
                    process.wait()
                    yield f"ended by signal {-process.returncode}"
                return
            line = json.loads(text)
            running = "begin" in line
            yield line
    except queue.Empty:
        if running:
            yield "hung"
    finally:
        process.kill()
        process.wait()


def _forward(process: subprocess.Popen[str], received: "queue.Queue[str | None]") -> None:
    for line in process.stdout or ():
        received.put(line)
    received.put(None)


def _environment() -> dict[str, str]:
    root = str(Path(__file__).parents[2])
    paths = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    return {**os.environ, "PYTHONPATH": paths}


def _tail(file: Path) -> str:
    return file.read_text(errors="replace")[-500:]


if __name__ == "__main__":
    main()
