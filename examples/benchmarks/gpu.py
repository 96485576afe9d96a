"""Speed on a CUDA GPU: `python examples/benchmarks/gpu.py [--clips 500]`.

Base and large shapes with random weights, clips of mixed lengths from memory, in every precision:
seconds of audio per second, and the share of the GPU's own matrix rate in that precision.
"""

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
import torch
from shapes import RATE, make_clip, write_model

from emoser import EmotionClassifier
from emoser.bench.machine import count_gflop
from emoser.checkpoints.save import load_model

SIZE = 8192


def measure_matrix_rate(dtype: torch.dtype) -> float:
    """GFLOP per second of the median of twenty products."""
    one = torch.randn(SIZE, SIZE, device="cuda", dtype=dtype)
    times = []
    for _ in range(20):
        torch.cuda.synchronize()
        began = time.perf_counter()
        one @ one
        torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return 2 * SIZE**3 / median(times) / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--clips", type=int, default=500)
    options = parser.parse_args()
    generator = np.random.default_rng(0)
    lengths = np.clip(generator.lognormal(1.1, 0.6, options.clips), 0.6, 12.0).round(2).tolist()
    clips = [make_clip(seconds, seed=place) for place, seconds in enumerate(lengths)]
    print(torch.cuda.get_device_name())
    with tempfile.TemporaryDirectory() as name:
        for shape in ("base", "large"):
            model = write_model(shape, Path(name) / shape)
            gflop = sum(count_gflop(load_model(model), lengths) or [])
            for dtype in ("float32", "float16", "bfloat16"):
                classifier = EmotionClassifier.from_pretrained(model, device="cuda", dtype=dtype)
                classifier.predict_batch(clips, sampling_rate=RATE)
                times = []
                for _ in range(3):
                    began = time.perf_counter()
                    classifier.predict_batch(clips, sampling_rate=RATE)
                    times.append(time.perf_counter() - began)
                share = gflop / median(times) / measure_matrix_rate(getattr(torch, dtype))
                speed = sum(lengths) / median(times)
                print(f"{shape} {dtype}: {speed:.0f} times real time, {share:.0%} of the limit")


if __name__ == "__main__":
    main()
