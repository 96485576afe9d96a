"""What decoding and resampling take of the time of the base model, for 48 kHz FLAC.

`python examples/benchmarks/speed.py --parts decoding` runs it.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import soundfile
from shapes import make_clip

from emoser import load_audio

SECONDS = 10.0
RATE = 48_000


def measure_decoding(sides: list[dict], starting: Callable, *, rounds: int) -> list[list[str]]:
    """A row of the table: the share, against the quickest engine."""
    with tempfile.TemporaryDirectory() as name, starting(sides) as workers:
        path = Path(name) / "clip.flac"
        soundfile.write(path, make_clip(SECONDS, RATE), RATE)
        load_audio(path)
        shares, decoded = [], []
        for _ in range(rounds):
            began = time.perf_counter()
            for _ in range(10):
                load_audio(path)
            decoded.append((time.perf_counter() - began) / 10)
            quickest = min(
                median(worker.ask(clip=SECONDS, repeats=2)["times"]) for worker in workers
            )
            shares.append(decoded[-1] / quickest)
    return [
        [
            "decoding and resampling 48 kHz FLAC",
            f"{SECONDS / median(decoded):.0f} times real time",
            f"{median(shares):.1%} of the base model at its quickest",
            "< 5 %",
        ]
    ]
