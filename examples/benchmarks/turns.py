"""Turns of a long call, and the same turns as files: `python examples/benchmarks/turns.py`.

Composes a call of `--turns` turns (2 to 12 s, pauses between them) from the clips of
`examples/audio` as FLAC, writes every turn as a WAV file of its own, and predicts both in one
process: `predict_turns` on the call, `predict_batch` on the files, alternating. Prints the median
times and their ratios by the clock and by the processor, which other programs disturb less; the
lower one must be at most 1.3. Checks that all answers are equal, and prints the
peak memory of `emoser predict --turns` on the call and on its first half.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from emoser import EmotionClassifier, load_audio

RATE = 16_000
CLIPS = Path(__file__).parents[1] / "audio"
GOAL = 1.3
ALLOWED_MIB = 50.0


def compose(folder: Path, num_turns: int) -> tuple[Path, Path, list[Path]]:
    """The call, its RTTM, and a file for each turn."""
    generator = np.random.default_rng(0)
    clips = [load_audio(path) for path in sorted(CLIPS.iterdir())]
    speech = np.concatenate([clip / np.abs(clip).max() * 0.5 for clip in clips] * 3)
    call, rttm = folder / "call.flac", folder / "call.rttm"
    lines, files, position = [], [], 0
    with soundfile.SoundFile(call, "w", RATE, 1, format="FLAC") as file:
        for number in range(num_turns):
            length = int(generator.uniform(2.0, 12.0) * RATE)
            first = int(generator.integers(len(speech) - length))
            turn = speech[first : first + length] * generator.uniform(0.3, 1.0)
            files.append(folder / f"{number:04}.wav")
            soundfile.write(files[-1], turn, RATE)
            file.write(soundfile.read(files[-1])[0])
            file.write(np.zeros(pause := int(generator.uniform(0.2, 3.5) * RATE)))
            times = f"{position / RATE:.6f} {length / RATE:.6f}"
            lines.append(f"SPEAKER call 1 {times} <NA> <NA> speaker{number % 2} <NA> <NA>\n")
            position += length + pause
    rttm.write_text("".join(lines), encoding="utf-8")
    print(f"{position / RATE / 60:.0f} minutes, {num_turns} turns")
    return call, rttm, files


def timed(work: Callable[[], Sequence[Any]]) -> tuple[tuple[float, float], Sequence[Any]]:
    """Seconds of a call by the clock and of the processor, and what it returns."""
    start, busy = time.perf_counter(), time.process_time()
    answers = work()
    return (time.perf_counter() - start, time.process_time() - busy), answers


def read_memory(call: Path, rttm: Path, model: str) -> float:
    """Peak memory in MiB of the command in a process of its own."""
    code = (
        "import sys; from emoser.bench.machine import read_peak; from emoser.cli import main; "
        "code = main(sys.argv[1:]); print(read_peak(), file=sys.stderr); sys.exit(code)"
    )
    words = ["predict", str(call), "--turns", str(rttm), "--model", model, "--json"]
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, check=True
    )
    return float(done.stderr.split()[-1])


def main() -> int:
    """Print the figures; returns 1 if one is worse than its goal."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="emoser-small")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--turns", type=int, default=400)
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    classifier = EmotionClassifier.from_pretrained(options.model, backend=options.backend)
    with tempfile.TemporaryDirectory() as place:
        call, rttm, files = compose(Path(place), options.turns)
        classifier.predict(files[0])
        seconds: dict[str, list[tuple[float, float]]] = {"turns": [], "files": []}
        for _ in range(options.repeat):
            taken, turns = timed(lambda: classifier.predict_turns(call, rttm).turns)
            seconds["turns"].append(taken)
            taken, alone = timed(lambda: classifier.predict_batch(files))
            seconds["files"].append(taken)
        equal = all(turn.prediction == answer for turn, answer in zip(turns, alone, strict=True))
        medians = {name: np.median(values, axis=0) for name, values in seconds.items()}
        ratios = medians["turns"] / medians["files"]
        for row, clock in enumerate(("clock", "processor")):
            turns_seconds, files_seconds = (medians[name][row] for name in ("turns", "files"))
            shown = f"turns {turns_seconds:.1f} s, files {files_seconds:.1f} s"
            print(f"by the {clock}: {shown}, ratio {ratios[row]:.2f}")
        print(f"answers equal: {equal}")
        half = Path(place) / "half.rttm"
        lines = rttm.read_text(encoding="utf-8").splitlines(keepends=True)
        half.write_text("".join(lines[: len(lines) // 2]), encoding="utf-8")
        memory = [read_memory(call, part, options.model) for part in (half, rttm)]
        print(f"memory: half of the call {memory[0]:.0f} MiB, all {memory[1]:.0f} MiB")
    return int(min(ratios) > GOAL or not equal or memory[1] - memory[0] > ALLOWED_MIB)


if __name__ == "__main__":
    sys.exit(main())
