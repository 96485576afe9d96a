"""Make torch compute on one core in some threads.

torch splits every operation among its threads, which wait for one another at its end: for small
models that costs more than it gains, and far more on cores that other processes use too. OpenMP's
number of threads is a property of the calling thread, so threads that run a recording each set
theirs to one without affecting the rest of the process; `torch.set_num_threads` would change it
for all.
"""

import ctypes
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import torch

LIBRARIES = ("libtorch_cpu.so", "libtorch_cpu.dylib", "libiomp5md.dll")
SET_OPENMP = "omp_set_num_threads"
SET_MKL = "MKL_Set_Num_Threads_Local"  # MKL keeps its own number per thread


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
