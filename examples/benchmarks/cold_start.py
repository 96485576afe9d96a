"""The whole process: `emoser predict` of one clip with the bundled checkpoint, and the pipeline.

`python examples/benchmarks/cold_start.py [--rounds 5]`. Engines that are not installed are left
out; "torch" is what runs without any extra.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from statistics import median

import soundfile
from shapes import RATE, make_clip

ENGINES = {"openvino": "openvino", "onnx": "onnxruntime", "torch": "torch"}
PIPELINE = """
import soundfile, sys
from emoser.models import torchaudio_guard
import torch
from transformers import pipeline
samples, rate = soundfile.read(sys.argv[2], dtype="float32")
listen = pipeline("audio-classification", sys.argv[1], device="cpu", dtype=torch.float32)
print(listen({"raw": samples, "sampling_rate": rate})[0]["label"])
"""


def time_process(words: list[str]) -> float:
    """Seconds of a whole process."""
    began = time.perf_counter()
    subprocess.run(words, check=True, capture_output=True, env={**os.environ})
    return time.perf_counter() - began


def measure_cold_starts(*, rounds: int) -> list[list[str]]:
    """Rows of the table; the sides take turns, and a first turn fills the caches of the disk."""
    from emoser.checkpoints.resolve import find_checkpoint

    with tempfile.TemporaryDirectory() as name:
        clip = Path(name) / "clip.wav"
        soundfile.write(clip, make_clip(4.0), RATE)
        predict = [sys.executable, "-m", "emoser", "predict", str(clip), "--backend"]
        sides = {
            engine: [*predict, engine] for engine, package in ENGINES.items() if find_spec(package)
        }
        folder = str(find_checkpoint().folder)
        sides["pipeline"] = [sys.executable, "-c", PIPELINE, folder, str(clip)]
        taken: dict[str, list[float]] = {engine: [] for engine in sides}
        for _ in range(rounds + 1):
            for engine, words in sides.items():
                taken[engine].append(time_process(words))
    times = {engine: values[1:] for engine, values in taken.items()}
    theirs = times.pop("pipeline")
    return [
        [
            f"emoser predict of one clip, whole process, {engine}",
            f"{median(values):.2f} s (pipeline {median(theirs):.2f} s)",
            f"{median(a / b for a, b in zip(values, theirs, strict=True)):.2f} of the pipeline",
            "<= 1.00" if engine == "torch" else "<= 0.25",
        ]
        for engine, values in times.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    for row in measure_cold_starts(rounds=parser.parse_args().rounds):
        print(*row, sep="  ")


if __name__ == "__main__":
    main()
