"""Which engine is fastest for a kind of model on this processor: measured once, and kept.

A kind is an encoder, a size within a factor of two, a precision, and a number of recordings at a
time. The record lies in the cache of graphs and is made anew for another processor, or another
version of an engine. Imports no engine.
"""

import hashlib
import json
import math
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from emoser.runtimes import Runtime, Samples
from emoser.runtimes.cache import cache_folder, read_record, write_record
from emoser.runtimes.processor import identify_processor

CLIP_SECONDS = (1.0, 2.5, 4.0)  # of the recordings that are timed
STEP_SECONDS = 0.1  # by which they are longer in each round
ROUNDS = 3  # after one to warm up


class SpeedRecord:
    """The seconds that engines need for the same recordings, kept in a file."""

    def __init__(self, kind: Mapping[str, Any], packages: Mapping[str, str]) -> None:
        """Find the record of a kind of model, by engines and their packages.

        Args:
            kind: What the speed depends on beside the processor and the engines.
            packages: The package of each engine, all of them installed.
        """
        stamps = {name: _stamp(package) for name, package in packages.items()}
        parts = {"processor": identify_processor(), "engines": stamps, **kind}
        name = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]
        self._names = frozenset(packages)
        self._file = cache_folder() / "speeds" / f"{name}.json"

    @property
    def fastest(self) -> str | None:
        """The fastest engine; None if it has not been measured."""
        seconds = (read_record(self._file) or {}).get("seconds")
        if not isinstance(seconds, dict) or frozenset(seconds) != self._names:
            return None
        known = all(isinstance(value, float) for value in seconds.values())
        return min(seconds, key=lambda name: float(seconds[name])) if known else None

    def can_be_kept(self) -> bool:
        """Whether a measurement would last; without that, every process would measure."""
        write_record(self._file, {})
        return self._file.is_file()

    def keep(self, seconds: Mapping[str, float]) -> None:
        """Keep the seconds of each engine."""
        write_record(self._file, {"seconds": dict(seconds)})


def measure_engines(
    runtimes: Mapping[str, Runtime], *, sampling_rate: int, num_streams: int = 1
) -> dict[str, float]:
    """The least seconds that each engine takes for the same recordings, so many at a time.

    They are timed in turns, so that other load affects all of them alike.
    """
    generator = np.random.default_rng(0)
    rounds = []
    for number in range(1 + ROUNDS):  # files are of new lengths, which some engines prepare for
        lengths = [
            round((seconds + number * STEP_SECONDS) * sampling_rate) for seconds in CLIP_SECONDS
        ]
        clips = [np.float32(0.1) * generator.standard_normal(size, np.float32) for size in lengths]
        runs = {name: partial(_infer, item, clips, num_streams) for name, item in runtimes.items()}
        rounds.append({name: run() for name, run in runs.items()})
    return {name: min(times[name] for times in rounds[1:]) for name in runtimes}


def size_class(num_bytes: int) -> int:
    """The class of models within a factor of two of a size.

    Example:
        >>> size_class(380_000_000), size_class(360_000_000), size_class(1_260_000_000)
        (29, 28, 30)
    """
    return round(math.log2(max(num_bytes, 1)))


def _infer(runtime: Runtime, clips: Sequence[Samples], num_streams: int) -> float:
    """Seconds of clips in one call, or in so many threads."""
    start = time.perf_counter()
    if num_streams == 1:
        runtime.infer(clips)
    else:
        with ThreadPoolExecutor(num_streams) as pool:
            list(pool.map(lambda clip: runtime.infer([clip]), list(clips) * num_streams))
    return time.perf_counter() - start


def _stamp(package: str) -> int:
    """When a package was installed; reading its version would take longer than a prediction."""
    found = find_spec(package)
    return Path(found.origin).stat().st_mtime_ns if found is not None and found.origin else 0
