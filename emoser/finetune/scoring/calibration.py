"""Temperature scaling (Guo et al. 2017)."""

import numpy as np
from numpy.typing import NDArray

LOWEST, HIGHEST = 0.05, 20.0
NUM_STEPS = 60  # of a golden-section search
GOLDEN = (np.sqrt(5.0) - 1.0) / 2.0


def fit_temperature(logits: NDArray[np.floating], truth: NDArray[np.number]) -> float:
    """The temperature that minimises the cross-entropy of softmax(logits / temperature).

    Args:
        logits: Logits of recordings that were not trained on, (N, C).
        truth: Their classes, (N,), or the share of votes for each, (N, C).

    Returns:
        A value in [0.05, 20]; above 1 for an overconfident model.

    Example:
        >>> logits = np.array([[2.0, 0.0]] * 3 + [[2.0, 0.0]])
        >>> round(fit_temperature(logits, np.array([0, 0, 0, 1])), 2)  # 3 of 4 are correct
        1.82
    """
    low, high = np.log(LOWEST), np.log(HIGHEST)
    for _ in range(NUM_STEPS):
        left, right = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
        if _cross_entropy(logits, truth, left) < _cross_entropy(logits, truth, right):
            high = right
        else:
            low = left
    return float(np.exp((low + high) / 2.0))


def _cross_entropy(
    logits: NDArray[np.floating], truth: NDArray[np.number], log_temperature: float
) -> float:
    scaled = logits.astype(np.float64) / np.exp(log_temperature)
    scaled -= scaled.max(axis=1, keepdims=True)
    if truth.ndim == 2:
        picked = (truth * scaled).sum(axis=1)
    else:
        picked = scaled[np.arange(len(truth)), truth]
    return float(np.mean(np.log(np.exp(scaled).sum(axis=1)) - picked))
