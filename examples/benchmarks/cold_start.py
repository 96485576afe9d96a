"""Time of a whole process that predicts one clip: `emoser predict` and the transformers pipeline.

Run by `python examples/benchmarks/cold_start.py [--rounds 5]`, with the default checkpoint and all
installed engines; "openvino" needs an extra. The pipeline gets `emoser-tiny`, which it can load.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from statistics import median

import soundfile

from emoser.audio.limits import SAMPLING_RATE
from emoser.bench.machine import make_clip
from emoser.checkpoints.resolve import find_checkpoint

ENGINES = {"openvino": "openvino", "onnx": "onnxruntime", "torch": "torch"}
PIPELINE = """
import soundfile, sys
from emoser.models import torchaudio_guard
import torch
from transformers import pipeline
samples, rate = soundfile.read(sys.argv[2], dtype="float32")
classify = pipeline("audio-classification", sys.argv[1], device="cpu", dtype=torch.float32)
print(classify({"raw": samples, "sampling_rate": rate})[0]["label"])
"""


def time_process(words: list[str]) -> float:
    """Duration of a process in seconds."""
    start = time.perf_counter()
    subprocess.run(words, check=True, capture_output=True)
    return time.perf_counter() - start


def measure_cold_starts(*, rounds: int) -> list[list[str]]:
    """Rows of the table. Processes alternate, and the first round only warms up the disk cache."""
    with tempfile.TemporaryDirectory() as name:
        clip = Path(name) / "clip.wav"
        soundfile.write(clip, make_clip(4.0), SAMPLING_RATE)
        predict = [sys.executable, "-m", "emoser", "predict", str(clip), "--backend"]
        sides = {
            engine: [*predict, engine] for engine, package in ENGINES.items() if find_spec(package)
        }
        folder = str(find_checkpoint("emoser-tiny").folder)
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
