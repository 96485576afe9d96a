"""Speed on a CUDA GPU: `python examples/benchmarks/gpu.py [--clips 500]`.

Prints the real-time factor of models of base and large size with random weights, for clips of
mixed lengths in memory, and the share of the GPU's matrix rate in the same precision.
"""

import argparse
import tempfile
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import torch
from shapes import write_model

from emoser import EmotionClassifier
from emoser.audio.limits import SAMPLING_RATE
from emoser.bench.machine import count_gflop, make_clip, time_calls
from emoser.checkpoints.save import load_model

SIZE = 8192


def measure_matrix_rate(dtype: torch.dtype) -> float:
    """Median rate of twenty matrix products in GFLOP per second."""
    one = torch.randn(SIZE, SIZE, device="cuda", dtype=dtype)
    torch.cuda.synchronize()

    def multiply() -> None:
        one @ one
        torch.cuda.synchronize()

    return 2 * SIZE**3 / median(time_calls(multiply, seconds=0.0, repeats=20)) / 1e9


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
                predict = partial(classifier.predict_batch, clips, sampling_rate=SAMPLING_RATE)
                predict()
                spent = median(time_calls(predict, seconds=0.0, repeats=3))
                share = gflop / spent / measure_matrix_rate(getattr(torch, dtype))
                speed = sum(lengths) / spent
                print(f"{shape} {dtype}: {speed:.0f} times real time, {share:.0%} of the limit")


if __name__ == "__main__":
    main()
