"""Random numbers that depend on the step of a run and leave the global generators unchanged."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def seeded(
    seed: int, step: int, *, rank: int = 0, device: torch.device | None = None
) -> Iterator[None]:
    """A block in which the generators of torch and NumPy are seeded; they are restored afterwards.

    Dropout draws from torch's generator, the masks of transformers from NumPy's. Each process
    (`rank`) has its own numbers. If `device` is a GPU, its generator is seeded too.
    """
    words = [seed, 3, step, rank] if rank else [seed, 3, step]
    word = int(np.random.SeedSequence(words).generate_state(1)[0])
    before = np.random.get_state()
    devices = [device] if device is not None and device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(word)
        np.random.seed(word)
        try:
            yield
        finally:
            np.random.set_state(before)
