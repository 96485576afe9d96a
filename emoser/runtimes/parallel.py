"""Run several recordings at once, in threads that compute on one core each.

Threads that share a recording wait for one another at the end of every product; threads with
recordings of their own do not. Recordings that are long still run one after another on all cores:
side by side they would need several times the memory.
"""

import heapq
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from emoser.runtimes import Samples

GROUP_ROUNDS = 16  # recordings for each thread in a group, so that threads end together
LONG_SAMPLES = 12 * 16_000

Item = TypeVar("Item")
Result = TypeVar("Result")


class WorkerThreads:
    """A pool of threads for one model, started when first used."""

    def __init__(self, num_threads: int, prepare: Callable[[], object] | None = None) -> None:
        """Set the number of threads, and what each calls at its start."""
        self.num_threads = num_threads
        self.prepare = prepare
        self._executor: ThreadPoolExecutor | None = None
        self._process = 0

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """`map(function, items)` in parallel; results in order."""
        if self._executor is None or self._process != os.getpid():  # threads do not survive a fork
            self._executor = ThreadPoolExecutor(
                self.num_threads, thread_name_prefix="emoser-model", initializer=self.prepare
            )
            self._process = os.getpid()
        return self._executor.map(function, items)

    def __reduce__(self) -> tuple[type["WorkerThreads"], tuple[object, ...]]:
        return WorkerThreads, (self.num_threads, self.prepare)


def run_in_parallel(
    recordings: Sequence[Samples],
    workers: WorkerThreads,
    *,
    on_one_core: Callable[[Sequence[Samples]], Sequence[Result]],
    on_all_cores: Callable[[Samples], Result] | None = None,
    pack_samples: int = 0,
) -> list[Result]:
    """The result for each recording, in order; one by one, the longest are computed first.

    Args:
        recordings: At 16 kHz, of any lengths.
        workers: For the recordings that run side by side.
        on_one_core: What they call with some recordings.
        on_all_cores: What is called for a long recording; None if those run side by side too.
        pack_samples: About the most samples in one such call; 0 for one recording each.
    """
    lengths = [len(samples) for samples in recordings]
    order = sorted(range(len(recordings)), key=lambda place: -lengths[place])
    num_long, by_place = 0, {}
    if on_all_cores is not None:
        num_long = sum(length >= LONG_SAMPLES for length in lengths)
        by_place = {place: on_all_cores(recordings[place]) for place in order[:num_long]}
    packs = pack(order[num_long:], lengths, workers.num_threads, pack_samples)
    outputs = workers.map(on_one_core, [[recordings[place] for place in part] for part in packs])
    for part, results in zip(packs, outputs, strict=True):
        by_place.update(zip(part, results, strict=True))
    return [by_place[place] for place in range(len(recordings))]


def pack(
    places: Sequence[int], lengths: Sequence[int], num_threads: int, largest: int
) -> list[list[int]]:
    """Places in packs of about the same total length, as many for each thread.

    Args:
        places: Of recordings, the longest first.
        lengths: Of all recordings, in samples.
        num_threads: How many packs run side by side.
        largest: About the most samples of a pack; 0 for one recording each.

    Example:
        >>> pack([2, 0, 3, 1], [50, 10, 90, 40], num_threads=2, largest=120)
        [[2, 1], [0, 3]]
    """
    if not largest:
        return [[place] for place in places]
    total = sum(lengths[place] for place in places)
    rounds = -(-total // (largest * num_threads))
    packs: list[list[int]] = [[] for _ in range(min(rounds * num_threads, len(places)))]
    filled = [(0, place) for place in range(len(packs))]
    for place in places:
        size, number = heapq.heappop(filled)
        packs[number].append(place)
        heapq.heappush(filled, (size + lengths[place], number))
    return packs
