"""Randomness that belongs to a step of a run, and leaves the global generators as they were.

Knows nothing of models.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def seeded(
    seed: int, step: int, *, rank: int = 0, device: torch.device | None = None
) -> Iterator[None]:
    """The global generators of torch and NumPy begin at (seed, step), and are put back.

    Dropout draws from torch's; the masks of transformers from NumPy's.

    Args:
        seed: Of the run.
        step: Of the run.
        rank: Number of the process; each draws its own.
        device: A GPU whose generator begins there too.
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
