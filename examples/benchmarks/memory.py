"""Peak memory of a timeline by length and format: `python examples/benchmarks/memory.py`.

Writes recordings of noise and pauses of 3 minutes, 30 minutes and 3 hours as WAV, FLAC and MP3 to
a temporary folder (450 MB), and a FLAC file with 3 hours of silence. Runs `emoser timeline` on each
in a process of its own and prints its peak memory in MiB, which must be within 50 MiB of that for
the 3-minute file of the same format.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile

RATE = 16_000
MINUTES = (3, 30, 180)
FORMATS = ("wav", "flac", "mp3")
ALLOWED_MIB = 50.0


def write_recording(path: Path, minutes: int, *, silent: bool = False) -> None:
    """Write ten seconds of noise with varying loudness and ten of silence, repeatedly."""
    generator = np.random.default_rng(0)
    envelope = np.abs(np.sin(np.linspace(0, 40, 10 * RATE))) * 0.2
    voice = (generator.standard_normal(10 * RATE) * envelope).astype(np.float32)
    part = np.concatenate([voice, np.zeros(10 * RATE, np.float32)])
    with soundfile.SoundFile(path, "w", RATE, 1) as file:
        for _ in range(minutes * 3):
            file.write(part * np.float32(not silent))


def measure(path: Path, options: list[str]) -> tuple[float, float]:
    """Peak memory in MiB and seconds of `emoser timeline` on a file."""
    code = (
        "import sys; from emoser.bench.machine import read_peak; from emoser.cli import main; "
        "code = main(sys.argv[1:]); print(read_peak(), file=sys.stderr); sys.exit(code)"
    )
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code, "timeline", str(path), "--json", *options],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=True,
    )
    return float(done.stderr.split()[-1]), time.perf_counter() - start


def main() -> int:
    """Print the table; returns 1 if a recording needed more memory than allowed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="emoser-tiny")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    words = ["--model", options.model, "--device", options.device]
    worst = 0.0
    with tempfile.TemporaryDirectory() as folder:
        for suffix in FORMATS:
            base = 0.0
            for minutes in MINUTES:
                path = Path(folder) / f"{minutes}.{suffix}"
                write_recording(path, minutes)
                size = path.stat().st_size / 1e6
                peak, seconds = measure(path, words)
                path.unlink()
                base = base or peak
                worst = max(worst, peak - base)
                print(
                    f"{suffix:5} {minutes:4} min  {size:7.1f} MB  peak {peak:7.1f} MiB  "
                    f"{peak - base:+6.1f} MiB  {seconds:6.1f} s",
                    flush=True,
                )
        path = Path(folder) / "silence.flac"
        write_recording(path, MINUTES[-1], silent=True)
        size = path.stat().st_size / 1e6
        peak, seconds = measure(path, words)
        print(f"silent flac 180 min  {size:.2f} MB  peak {peak:.1f} MiB  {seconds:.1f} s")
    print(f"largest difference to 3 minutes: {worst:+.1f} MiB (allowed {ALLOWED_MIB:g})")
    return int(worst > ALLOWED_MIB)


if __name__ == "__main__":
    sys.exit(main())
