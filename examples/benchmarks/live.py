"""Cost of a live stream: `python examples/benchmarks/live.py [--threads 2]`.

Pushes two minutes of noise in blocks of 100 ms through an `EmotionStream` with default options and
prints the total time per hop as a share of the hop.
"""

import argparse
import sys
import time

import numpy as np

from emoser import EmotionClassifier, EmotionStream

RATE = 48_000
SECONDS = 120
BLOCK = RATE // 10


def main() -> int:
    """Print the share; returns 1 if it is above 10 %."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="emoser-tiny")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    classifier = EmotionClassifier.from_pretrained(
        options.model, device="cpu", backend=options.backend
    )
    if classifier.info.backend == "torch":
        import torch

        torch.set_num_threads(options.threads)
    stream = EmotionStream(classifier, sampling_rate=RATE)
    generator = np.random.default_rng(0)
    times, used = [], []
    for _ in range(SECONDS):
        blocks = generator.standard_normal((RATE // BLOCK, BLOCK)).astype(np.float32) / 10
        start, start_used = time.perf_counter(), time.process_time()
        for block in blocks:
            stream.push(block)
        times.append(time.perf_counter() - start)
        used.append(time.process_time() - start_used)
    warm = np.sort(times[5:])
    median, slowest = float(np.median(warm)), float(warm[int(0.99 * len(warm))])
    name = f"{classifier.info.name} on {classifier.info.backend}, {options.threads} threads"
    print(f"{name}: {median:.1%} of a hop of 1 s (median), {slowest:.1%} (99th percentile)")
    print(f"processor time: {np.median(used[5:]):.1%} of a hop on one core")
    print(f"delay: at most {stream.delay_seconds:g} s of window and hop, plus {slowest:.3f} s")
    return int(median > 0.1)


if __name__ == "__main__":
    sys.exit(main())
