"""Speed and exactness on a CUDA GPU: `python examples/benchmarks/gpu.py [--clips 500]`.

Prints, for models of base and large size with random weights and clips of mixed lengths in memory:
the real-time factor, clips per second, the share of the GPU's matrix rate in the same precision,
and the largest difference of a logit between a clip in a batch and alone, as a share of the largest
logit. Then the speed of training a base-size encoder ("EF"), in seconds of audio per second.
`--device cpu --shapes tiny --clips 4 --steps 1` tries the script without a GPU.
"""

import argparse
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from statistics import median

import numpy as np
import torch
from finetuning import BATCH, SECONDS, step_emoser, write_clips, write_encoder
from shapes import SHAPES, write_model

from emoser import EmotionClassifier
from emoser.audio.limits import SAMPLING_RATE
from emoser.bench.machine import count_gflop, make_clip, time_calls
from emoser.checkpoints.save import load_model

SIZES = {"cuda": 8192, "cpu": 512}  # of the square matrices that are multiplied
COMPARED = 16  # clips that are predicted alone as well
DTYPES = ("float32", "float16", "bfloat16")


def measure_matrix_rate(dtype: torch.dtype, device: str) -> float:
    """Median rate of twenty matrix products in GFLOP per second."""
    size = SIZES[device]
    one = torch.randn(size, size, device=device).to(dtype)

    def multiply() -> None:
        (one @ one).sum().item()  # waits for the device

    multiply()
    return 2 * size**3 / median(time_calls(multiply, seconds=0.0, repeats=20)) / 1e9


def compare_batches(classifier: EmotionClassifier, clips: Sequence[np.ndarray]) -> float:
    """The largest difference of a logit in a batch, as a share of the largest logit."""
    runtime = classifier.predictor.runtime
    together = runtime.infer(clips).logits
    alone = np.concatenate([runtime.infer([clip]).logits for clip in clips])
    return float(np.abs(together - alone).max() / np.abs(alone).max())


def measure_predictions(shape: str, options: argparse.Namespace, place: Path) -> None:
    """Print a row for each precision."""
    generator = np.random.default_rng(0)
    lengths = np.clip(generator.lognormal(1.1, 0.6, options.clips), 0.6, 12.0).round(2).tolist()
    clips = [make_clip(seconds, seed=number) for number, seconds in enumerate(lengths)]
    model = write_model(shape, place / shape)
    gflop = sum(count_gflop(load_model(model), lengths) or [])
    for dtype in options.dtypes:
        classifier = EmotionClassifier.from_pretrained(
            model, device=options.device, dtype=dtype, backend="torch"
        )
        predict = partial(classifier.predict_batch, clips, sampling_rate=SAMPLING_RATE)
        predict()
        spent = median(time_calls(predict, seconds=0.0, repeats=3))
        share = gflop / spent / measure_matrix_rate(getattr(torch, dtype), options.device)
        print(
            f"{shape} {dtype}: {sum(lengths) / spent:.0f} times real time, "
            f"{len(clips) / spent:.0f} clips/s, {share:.0%} of the limit, batches differ by "
            f"{compare_batches(classifier, clips[:COMPARED]):.1e}"
        )


def measure_training(options: argparse.Namespace, place: Path) -> None:
    """Print the speed of some updates in each precision."""
    tiny = {"num_hidden_layers": 1} if options.shapes == ["tiny"] else {}
    encoder, clips = write_encoder(place / "encoder", **tiny), write_clips(place, BATCH)
    for dtype in options.dtypes:
        steps = step_emoser(encoder, clips, place, "EF", precision=dtype)
        next(steps)
        start = time.perf_counter()
        list(islice(steps, options.steps))
        speed = options.steps * BATCH * SECONDS / (time.perf_counter() - start)
        print(f"training, {dtype}: {speed:.1f} s of audio per second")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--clips", type=int, default=500)
    parser.add_argument("--steps", type=int, default=20, help="updates of the training")
    parser.add_argument("--device", default="cuda", choices=SIZES)
    parser.add_argument("--shapes", nargs="+", default=["base", "large"], choices=SHAPES)
    parser.add_argument("--dtypes", nargs="+", default=DTYPES, choices=DTYPES)
    options = parser.parse_args()
    if options.device == "cuda":
        print(torch.cuda.get_device_name())
    with tempfile.TemporaryDirectory() as name:
        for shape in options.shapes:
            measure_predictions(shape, options, Path(name))
        measure_training(options, Path(name))


if __name__ == "__main__":
    main()
