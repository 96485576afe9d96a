"""Time of decoding and resampling 48 kHz FLAC, relative to that of the base model.

Run by `python examples/benchmarks/speed.py --parts decoding`.
"""

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import mean, median

import soundfile

from emoser import load_audio
from emoser.bench.machine import make_clip, time_calls

SECONDS = 10.0
RATE = 48_000


def measure_decoding(
    sides: list[dict], starting: Callable, time_clip: Callable, *, rounds: int
) -> list[list[str]]:
    """A row of the table: the share of the time of the fastest engine."""
    with tempfile.TemporaryDirectory() as name, starting(sides) as workers:
        path = Path(name) / "clip.flac"
        soundfile.write(path, make_clip(SECONDS, sampling_rate=RATE), RATE)
        load_audio(path)
        shares, decoded = [], []
        for _ in range(rounds):
            decoded.append(mean(time_calls(partial(load_audio, path), seconds=0.0, repeats=10)))
            fastest = min(median(time_clip(worker, SECONDS, 2)) for worker in workers)
            shares.append(decoded[-1] / fastest)
    return [
        [
            "decoding and resampling 48 kHz FLAC",
            f"{SECONDS / median(decoded):.0f} times real time",
            f"{median(shares):.1%} of the base model on the fastest engine",
            "< 5 %",
        ]
    ]
