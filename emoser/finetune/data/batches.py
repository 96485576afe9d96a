"""Batches: which clips are drawn together, and how they are padded to one tensor.

The same utterances, configuration and epoch give the same batches.
"""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from emoser.finetune.config import FinetuneConfig
from emoser.finetune.data.utterance import Utterance

SORTING_POOL = 50  # batches whose clips are sorted by length together
BATCH_SAMPLES = 30 * 16_000  # of a batch for inference, padding included


def plan_epoch(
    utterances: Sequence[Utterance],
    durations: Sequence[float],
    config: FinetuneConfig,
    *,
    epoch: int,
) -> list[list[int]]:
    """The batches of an epoch, as indices into the utterances.

    Args:
        utterances: The training set.
        durations: Length of each, in any unit; used only if `sampling` is "sorted".
        config: The settings, including the seed.
        epoch: Number of the epoch; each has its own order.

    Raises:
        ValueError: If `corpus_weights` names a corpus that is not in the training set.

    Example:
        >>> calls = [Utterance(f"{i}.wav", "sad") for i in range(5)]
        >>> plan_epoch(calls, [1.0] * 5, FinetuneConfig(batch_size=2), epoch=0)
        [[1, 4], [3, 0], [2]]
    """
    generator = np.random.default_rng([config.run.seed, 1, epoch])
    num_clips = config.data.epoch_clips or len(utterances)
    if config.data.sampling == "balanced":
        order = _draw_balanced(utterances, config, num_clips, generator)
    else:
        rounds = -(-num_clips // len(utterances))
        order = np.concatenate([generator.permutation(len(utterances)) for _ in range(rounds)])
        order = order[:num_clips]
    if config.data.sampling == "sorted":
        return _sorted_batches(order, durations, config.data.batch_size, generator)
    return _cut(order, config.data.batch_size)


def crop(
    samples: NDArray[np.float32], size: int, generator: np.random.Generator
) -> NDArray[np.float32]:
    """At most `size` samples of a clip, from a random position.

    Example:
        >>> crop(np.arange(9, dtype=np.float32), 3, np.random.default_rng(1))
        array([3., 4., 5.], dtype=float32)
    """
    if len(samples) <= size:
        return samples
    start = int(generator.integers(len(samples) - size + 1))
    return samples[start : start + size]


def collate(clips: Sequence[NDArray[np.float32]]) -> tuple[Tensor, Tensor]:
    """Clips as one zero-padded tensor (B, T) and their lengths (B,).

    Example:
        >>> collate([np.ones(2, np.float32), np.ones(1, np.float32)])
        (tensor([[1., 1.],
                [1., 0.]]), tensor([2, 1]))
    """
    lengths = torch.tensor([len(clip) for clip in clips])
    samples = torch.zeros(len(clips), max(int(lengths.max()), 1))
    for row, clip in zip(samples, clips, strict=True):
        row[: len(clip)] = torch.from_numpy(np.ascontiguousarray(clip))
    return samples, lengths


def length_batches(num_samples: Sequence[int]) -> list[list[int]]:
    """Batches of clips of similar length, for inference.

    Example:
        >>> length_batches([100, 480_000, 200])
        [[0, 2], [1]]
    """
    batches: list[list[int]] = [[]]
    for index in sorted(range(len(num_samples)), key=lambda item: num_samples[item]):
        if batches[-1] and (len(batches[-1]) + 1) * num_samples[index] > BATCH_SAMPLES:
            batches.append([])
        batches[-1].append(index)
    return batches


def _draw_balanced(
    utterances: Sequence[Utterance],
    config: FinetuneConfig,
    num_clips: int,
    generator: np.random.Generator,
) -> NDArray[np.int64]:
    groups: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for index, utterance in enumerate(utterances):
        groups[utterance.corpus or ""][utterance.label].append(index)
    unknown = sorted(set(config.data.corpus_weights) - set(groups))
    if unknown:
        raise ValueError(
            f"corpus_weights names {', '.join(unknown)}, the training set has "
            f"{', '.join(sorted(groups))}"
        )
    chances = np.zeros(len(utterances))
    for corpus, classes in groups.items():
        weight = config.data.corpus_weights.get(corpus, 1.0)
        for members in classes.values():
            chances[members] = weight / len(classes) / len(members)
    return _draw_systematically(chances / chances.sum(), num_clips, generator)


def _draw_systematically(
    chances: NDArray[np.float64], num_draws: int, generator: np.random.Generator
) -> NDArray[np.int64]:
    """Systematic sampling: an index of probability p is drawn floor or ceil of p x draws times."""
    order = generator.permutation(len(chances))
    edges = np.cumsum(chances[order])
    positions = (generator.random() + np.arange(num_draws)) / num_draws
    drawn = order[np.searchsorted(edges / edges[-1], positions, side="right")]
    return generator.permutation(drawn)


def _sorted_batches(
    order: NDArray[np.int64],
    durations: Sequence[float],
    batch_size: int,
    generator: np.random.Generator,
) -> list[list[int]]:
    batches = []
    for pool in _cut(order, batch_size * SORTING_POOL):
        by_length = sorted(pool, key=lambda index: durations[index])
        batches += _cut(np.array(by_length), batch_size)
    return [batches[index] for index in generator.permutation(len(batches))]


def _cut(order: NDArray[np.int64], size: int) -> list[list[int]]:
    return [order[start : start + size].tolist() for start in range(0, len(order), size)]
