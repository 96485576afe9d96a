"""Work side by side in threads that compute on one core each.

torch splits every operation among its threads, which wait for one another at its end: for small
models that costs more than it gives, and on cores that others use too it costs many times as
much. Here several recordings run at once instead, each on a thread of its own. The number of
threads that OpenMP splits an operation among belongs to the thread that asks, so the workers
set theirs to one and no other thread of the process notices; `torch.set_num_threads` would
change it for all. Knows nothing of models or audio.
"""

import ctypes
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import TypeVar

import torch

LIBRARIES = ("libtorch_cpu.so", "libtorch_cpu.dylib", "libiomp5md.dll")
SET_OPENMP = "omp_set_num_threads"
SET_MKL = "MKL_Set_Num_Threads_Local"  # Intel's library keeps a number of its own per thread
Item = TypeVar("Item")
Result = TypeVar("Result")


class WorkerThreads:
    """Threads for one model, started when they are first needed."""

    def __init__(self, num_threads: int) -> None:
        self.num_threads = num_threads
        self._executor: ThreadPoolExecutor | None = None
        self._process = 0

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """`map(function, items)`, side by side; results in order."""
        if self._executor is None or self._process != os.getpid():  # a fork takes no threads along
            self._executor = ThreadPoolExecutor(
                self.num_threads, thread_name_prefix="emoser-torch", initializer=work_alone
            )
            self._process = os.getpid()
        return self._executor.map(function, items)

    def __reduce__(self) -> tuple[type["WorkerThreads"], tuple[int]]:
        return WorkerThreads, (self.num_threads,)


def work_alone() -> bool:
    """Let what the calling thread computes run on that thread alone; whether it does now."""
    if torch.get_num_threads() > 1 and (library := _openmp()) is not None:
        library[SET_OPENMP](1)
        if hasattr(library, SET_MKL):
            library[SET_MKL](1)
    return torch.get_num_threads() == 1


@cache
def can_work_alone() -> bool:
    """Whether threads of this process can be told to compute on one core each."""
    with ThreadPoolExecutor(1) as executor:
        return executor.submit(work_alone).result()


@cache
def _openmp() -> ctypes.CDLL | None:
    """The library whose threads torch uses, where it says how many there are."""
    folder = Path(torch.__file__).parent / "lib"
    for file in (folder / name for name in LIBRARIES):
        if file.is_file():
            library = ctypes.CDLL(str(file))
            return library if hasattr(library, SET_OPENMP) else None
    return None
