"""The process that `emoser.bench` asks: tasks in, one JSON object per line; answers out likewise.

Its one argument is what it is to be: an engine with a checkpoint loaded, or the gauge that
measures the machine. The first line that it writes says that it is ready, an engine after its
first answer. A fault is written as `{"error": ...}` and ends the process.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from emoser.bench.machine import count_gflop, describe_machine, measure_limit, read_peak
from emoser.bench.recordings import MIXED_SECONDS, RATE, SECONDS, make_clip, mixed_clips
from emoser.errors import EmoserError

Samples = npt.NDArray[np.float32]
PEER_BATCHES = (1, 8)  # of which transformers' pipeline may have the quicker
FAULTS = (EmoserError, OSError, ValueError, ImportError, RuntimeError, KeyError, AttributeError)
"""What an engine raises that does not run here; the last two are transformers' for a
configuration that is not its own."""


class Opened(NamedTuple):
    """An engine with its checkpoint.

    Attributes:
        predict: One clip.
        predict_all: Many clips, in whichever of the ways of the engine; one entry per way.
        facts: How the engine calls itself, and its precision.
    """

    predict: Callable[[Samples], object]
    predict_all: tuple[Callable[[list[Samples]], object], ...]
    facts: dict[str, Any]


def main() -> None:
    """Be what the argument says, until the standard input ends."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is no answer
    try:
        for answer in _serve(json.loads(sys.argv[1])):
            print(json.dumps(answer), file=out, flush=True)
    except FAULTS as error:
        first = (str(error).strip() or type(error).__name__).split("\n")[0]
        print(json.dumps({"error": first}), file=out, flush=True)


def _serve(job: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The answers: one when ready, and one per task."""
    if job["kind"] == "gauge":
        yield from _serve_gauge(Path(job["model"]))
        return
    opened = open_engine(job)
    opened.predict(make_clip(SECONDS))
    yield opened.facts
    quickest: Callable[[list[Samples]], object] | None = None
    for task in map(json.loads, sys.stdin):
        if task["task"] == "alone":
            yield {"times": _time_alone(opened.predict, task["seconds"])}
            continue
        if quickest is None:
            quickest = min(opened.predict_all, key=_time_pass)
        yield {**_time_mixed(quickest, task["seconds"]), "peak_mib": read_peak()}


def _serve_gauge(folder: Path) -> Iterator[dict[str, Any]]:
    """What the machine is and the model needs; then, per task, the matrix limits."""
    machine = describe_machine()
    yield {"machine": machine, "gflop": _count(folder)}
    dtypes = ["float32", *(["bfloat16"] if machine["bfloat16"] else [])]
    for task in map(json.loads, sys.stdin):
        limits = {dtype: measure_limit(dtype, seconds=task["seconds"]) for dtype in dtypes}
        yield {"limits": limits}


def _count(folder: Path) -> list[float] | None:
    """GFLOP of the clip whose latency is told and of each of the mixed ones."""
    from emoser.checkpoints.layouts.registry import load_checkpoint

    try:
        model = load_checkpoint(folder).model
    except EmoserError:  # an exported folder has no weights to count with
        return None
    return count_gflop(model, (SECONDS, *MIXED_SECONDS))


def open_engine(job: Mapping[str, Any]) -> Opened:
    """Load a checkpoint into an engine, or into transformers' pipeline."""
    if job["runtime"] == "transformers":
        return _open_pipeline(job["model"])
    from emoser.classifier import EmotionClassifier

    classifier = EmotionClassifier.from_pretrained(
        job["model"], device="cpu", dtype=job["dtype"], backend=job["runtime"]
    )
    return Opened(
        lambda clip: classifier.predict(clip, sampling_rate=RATE),
        (lambda clips: classifier.predict_batch(clips, sampling_rate=RATE),),
        {"runtime": classifier.info.backend, "dtype": classifier.info.dtype},
    )


def _open_pipeline(model: str) -> Opened:
    """The way of transformers itself, on the same weights, in float32."""
    import torch

    from emoser.checkpoints.resolve import find_checkpoint
    from emoser.models import torchaudio_guard  # noqa: F401  # before the first import of transformers

    folder = find_checkpoint(model).folder
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if config.get("model_type") == "emoser":
        from emoser.checkpoints.registration import register

        register()
    from transformers import pipeline

    listen = pipeline("audio-classification", str(folder), device="cpu", dtype=torch.float32)

    def ask(clip: Samples) -> dict[str, Any]:
        return {"raw": clip, "sampling_rate": RATE}

    def many(size: int) -> Callable[[list[Samples]], object]:
        return lambda clips: listen([ask(clip) for clip in clips], batch_size=size)

    return Opened(
        lambda clip: listen(ask(clip)),
        tuple(many(size) for size in PEER_BATCHES),
        {"runtime": "transformers", "dtype": "float32"},
    )


def _time_alone(predict: Callable[[Samples], object], seconds: float) -> list[float]:
    """How long one clip takes, again and again, at least three times."""
    clip = make_clip(SECONDS)
    times: list[float] = []
    until = time.perf_counter() + seconds
    while len(times) < 3 or time.perf_counter() < until:
        began = time.perf_counter()
        predict(clip)
        times.append(time.perf_counter() - began)
    return times


def _time_mixed(predict_all: Callable[[list[Samples]], object], seconds: float) -> dict[str, float]:
    """How often all the mixed clips pass within a time, at least once."""
    clips, passes, began = mixed_clips(), 0, time.perf_counter()
    while not passes or time.perf_counter() - began < seconds:
        predict_all(clips)
        passes += 1
    return {"passes": passes, "seconds": time.perf_counter() - began}


def _time_pass(predict_all: Callable[[list[Samples]], object]) -> float:
    """How long the mixed clips take once; the first time warms up."""
    predict_all(mixed_clips())
    return _time_mixed(predict_all, 0.0)["seconds"]


if __name__ == "__main__":
    main()
