"""Run several recordings at once, each in a thread that computes on one core.

Threads that share a recording wait for one another at the end of every product; threads with a
recording each do not. Recordings that are long still run one after another on all cores: side by
side they would need several times the memory.
"""

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
    on_one_core: Callable[[Samples], Result],
    on_all_cores: Callable[[Samples], Result] | None = None,
) -> list[Result]:
    """The result for each recording, in order; the longest are computed first.

    Args:
        recordings: At 16 kHz, of any lengths.
        workers: For the recordings that run side by side.
        on_one_core: What they call.
        on_all_cores: What is called for a long recording; None if those run side by side too.
    """
    order = sorted(range(len(recordings)), key=lambda place: -len(recordings[place]))
    ordered = [recordings[place] for place in order]
    num_long, results = 0, []
    if on_all_cores is not None:
        num_long = sum(len(samples) >= LONG_SAMPLES for samples in ordered)
        results = [on_all_cores(samples) for samples in ordered[:num_long]]
    results += workers.map(on_one_core, ordered[num_long:])
    by_place = dict(zip(order, results, strict=True))
    return [by_place[place] for place in range(len(order))]
