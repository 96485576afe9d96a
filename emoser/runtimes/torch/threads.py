"""Run functions in parallel, in threads that compute on one core each.

torch splits every operation among its threads, which wait for one another at its end: for small
models that costs more than it gains, and far more on cores that other processes use too. Here
several recordings run at once instead, each on its own thread. OpenMP's number of threads is a
property of the calling thread, so the workers set theirs to one without affecting the rest of
the process; `torch.set_num_threads` would change it for all.
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
SET_MKL = "MKL_Set_Num_Threads_Local"  # MKL keeps its own number per thread
Item = TypeVar("Item")
Result = TypeVar("Result")


class WorkerThreads:
    """A pool of threads for one model, started when first used."""

    def __init__(self, num_threads: int) -> None:
        self.num_threads = num_threads
        self._executor: ThreadPoolExecutor | None = None
        self._process = 0

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """`map(function, items)` in parallel; results in order."""
        if self._executor is None or self._process != os.getpid():  # threads do not survive a fork
            self._executor = ThreadPoolExecutor(
                self.num_threads, thread_name_prefix="emoser-torch", initializer=work_alone
            )
            self._process = os.getpid()
        return self._executor.map(function, items)

    def __reduce__(self) -> tuple[type["WorkerThreads"], tuple[int]]:
        return WorkerThreads, (self.num_threads,)


def work_alone() -> bool:
    """Make torch compute on the calling thread alone; whether that succeeded."""
    if torch.get_num_threads() > 1 and (library := _openmp()) is not None:
        library[SET_OPENMP](1)
        if hasattr(library, SET_MKL):
            library[SET_MKL](1)
    return torch.get_num_threads() == 1


@cache
def can_work_alone() -> bool:
    """Whether threads of this process can be made to compute on one core each."""
    with ThreadPoolExecutor(1) as executor:
        return executor.submit(work_alone).result()


@cache
def _openmp() -> ctypes.CDLL | None:
    """The library whose threads torch uses, if their number can be set in it."""
    folder = Path(torch.__file__).parent / "lib"
    for file in (folder / name for name in LIBRARIES):
        if file.is_file():
            library = ctypes.CDLL(str(file))
            return library if hasattr(library, SET_OPENMP) else None
    return None
