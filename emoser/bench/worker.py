"""The process that measures one engine, or the machine, on behalf of `emoser.bench.Worker`.

The argument is a job as a JSON object. The first line of output reports that the process is ready,
for an engine after its first prediction. Then each line of input is a task and each line of output
its result, all of them JSON objects. An error is written as `{"error": ...}` and ends the process.
"""

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from emoser.audio.limits import SAMPLING_RATE
from emoser.bench.machine import (
    CLIP_SECONDS,
    MIXED_SECONDS,
    count_gflop,
    describe_machine,
    make_clip,
    measure_limit,
    mixed_clips,
    read_peak,
    time_calls,
)
from emoser.checkpoints.atomic import scratch_folder
from emoser.checkpoints.files import CONFIG, CheckpointFiles
from emoser.errors import EmoserError

Samples: TypeAlias = npt.NDArray[np.float32]
PredictAll: TypeAlias = Callable[[list[Samples]], object]
PIPELINE_BATCHES = (1, 8)  # batch sizes of the transformers pipeline, of which the faster counts
ERRORS = (EmoserError, OSError, ValueError, ImportError, RuntimeError, KeyError, AttributeError)
"""Raised by an engine that cannot run here; the last two by transformers for a foreign config."""


class LoadedEngine(NamedTuple):
    """An engine with its checkpoint.

    Attributes:
        model: The classifier or pipeline.
        predict: Predicts one clip.
        predict_all: Ways to predict many clips, of which the fastest counts.
        facts: The engine's own "runtime" and "dtype".
    """

    model: Any
    predict: Callable[[Samples], object]
    predict_all: tuple[PredictAll, ...]
    facts: dict[str, Any]


Task: TypeAlias = Callable[[LoadedEngine, Mapping[str, Any]], dict[str, Any]]
Load: TypeAlias = Callable[[Mapping[str, Any]], LoadedEngine]


def load_engine(job: Mapping[str, Any]) -> LoadedEngine:
    """Load a checkpoint into an engine of emoser or into the transformers pipeline."""
    if job["runtime"] == "transformers":
        return _load_pipeline(job["model"])
    from emoser.classifier import EmotionClassifier

    classifier = EmotionClassifier.from_pretrained(
        job["model"], device="cpu", dtype=job["dtype"], backend=job["runtime"]
    )
    return LoadedEngine(
        classifier,
        lambda clip: classifier.predict(clip, sampling_rate=SAMPLING_RATE),
        (lambda clips: classifier.predict_batch(clips, sampling_rate=SAMPLING_RATE),),
        {"runtime": classifier.info.backend, "dtype": classifier.info.dtype},
    )


def _load_pipeline(model: str) -> LoadedEngine:
    import torch

    from emoser.checkpoints.resolve import find_checkpoint
    from emoser.models import torchaudio_guard  # noqa: F401  # before the first import of transformers

    files = find_checkpoint(model)
    if files.config.get("model_type") == "emoser":
        from emoser.checkpoints.registration import register

        register()
    from transformers import pipeline

    with scratch_folder() as place:
        _write_plain(files, place)
        classify = pipeline("audio-classification", str(place), device="cpu", dtype=torch.float32)

    def as_input(clip: Samples) -> dict[str, Any]:
        return {"raw": clip, "sampling_rate": SAMPLING_RATE}

    def in_batches(size: int) -> PredictAll:
        return lambda clips: classify([as_input(clip) for clip in clips], batch_size=size)

    return LoadedEngine(
        classify,
        lambda clip: classify(as_input(clip)),
        tuple(in_batches(size) for size in PIPELINE_BATCHES),
        {"runtime": "transformers", "dtype": "float32"},
    )


def _write_plain(files: CheckpointFiles, folder: Path) -> None:
    """Links to the files of a checkpoint, beside a configuration that asks for nothing else."""
    from emoser.checkpoints.encoder_fields import plain_config

    for name in files.stamps:
        (folder / name).symlink_to((files.folder / name).resolve())
    (folder / CONFIG).unlink()
    config = plain_config(files.config, files.folder / CONFIG)
    (folder / CONFIG).write_text(json.dumps(config), encoding="utf-8")


def time_single(engine: LoadedEngine, task: Mapping[str, Any]) -> dict[str, Any]:
    """Times of one clip, repeated for `seconds` and at least `repeats` times."""
    clip = make_clip(task.get("clip_seconds", CLIP_SECONDS))
    engine.predict(clip)
    predict = partial(engine.predict, clip)
    return {"times": time_calls(predict, seconds=task["seconds"], repeats=task.get("repeats", 3))}


def time_mixed(engine: LoadedEngine, task: Mapping[str, Any]) -> dict[str, Any]:
    """Number of passes over the mixed clips within `seconds`, at least one."""
    predict = partial(_choose_fastest(engine.predict_all), mixed_clips())
    times = time_calls(predict, seconds=task["seconds"])
    return {"passes": len(times), "seconds": sum(times), "peak_mib": read_peak()}


@cache
def _choose_fastest(candidates: tuple[PredictAll, ...]) -> PredictAll:
    """The fastest candidate in one pass over the mixed clips, after another one for warm-up."""
    clips = mixed_clips()
    return min(
        candidates,
        key=lambda predict: time_calls(partial(predict, clips), seconds=0.0, repeats=2)[-1],
    )


TASKS: Mapping[str, Task] = {"single": time_single, "mixed": time_mixed}


def main(*, load: Load = load_engine, tasks: Mapping[str, Task] = TASKS) -> None:
    """Run the job of the command line until standard input ends.

    Args:
        load: Loads the engine of a job.
        tasks: What can be asked of an engine, by name.
    """
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # keep what libraries print out of the results
    job = json.loads(sys.argv[1])
    try:
        results = _measure_machine(job) if job["kind"] == "machine" else _run(load(job), tasks)
        for result in results:
            print(json.dumps(result), file=out, flush=True)
    except ERRORS as error:
        first = (str(error).strip() or type(error).__name__).split("\n")[0]
        print(json.dumps({"error": first}), file=out, flush=True)


def _run(engine: LoadedEngine, tasks: Mapping[str, Task]) -> Iterator[dict[str, Any]]:
    """The facts of an engine after its first prediction, then the result of each task."""
    engine.predict(make_clip(CLIP_SECONDS))
    yield engine.facts
    for task in map(json.loads, sys.stdin):
        yield tasks[task["task"]](engine, task)


def _measure_machine(job: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The machine and the arithmetic of the model, then the matrix limits for each task."""
    machine = describe_machine()
    yield {"machine": machine, "gflop": _count_gflop(Path(job["model"]))}
    dtypes = ["float32", *(["bfloat16"] if machine["bfloat16"] else [])]
    for task in map(json.loads, sys.stdin):
        limits = {dtype: measure_limit(dtype, seconds=task["seconds"]) for dtype in dtypes}
        yield {"limits": limits}


def _count_gflop(folder: Path) -> list[float] | None:
    """GFLOP of the clip whose latency is measured and of each of the mixed clips."""
    from emoser.checkpoints.layouts.registry import load_checkpoint

    try:
        model = load_checkpoint(folder).model
    except EmoserError:  # an exported folder has a graph only
        return None
    rate = model.config.sampling_rate
    return count_gflop(model, (CLIP_SECONDS, *MIXED_SECONDS), sampling_rate=rate)


if __name__ == "__main__":
    main()
