"""What a machine can do, and what a model asks of it: matrix arithmetic, counted and timed."""

import os
import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from emoser.bench.recordings import RATE

CPU_INFO = Path("/proc/cpuinfo")
STATUS = Path("/proc/self/status")
BFLOAT16 = {"avx512_bf16", "amx_bf16", "bf16"}
INT8 = {"avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm"}
SIZES = (1024, 2048)  # of the square matrices that are multiplied


def describe_machine() -> dict[str, Any]:
    """Processor, cores that this process may use, and native precisions (None where unknown)."""
    name, flags = _read_processor()
    return {
        "processor": name,
        "cores": count_cores(),
        "system": platform.system(),
        "bfloat16": bool(flags & BFLOAT16) if flags else None,
        "int8": bool(flags & INT8) if flags else None,
    }


def count_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def measure_limit(dtype: str, *, seconds: float) -> float:
    """The fastest product of square matrices, in GFLOP per second.

    The best of torch's and, in float32, NumPy's libraries: neither is quick on every processor.
    """
    import torch

    rates = []
    for size in SIZES:
        one, other = (torch.ones(size, size, dtype=getattr(torch, dtype)) for _ in range(2))
        rates.append(_rate(lambda one=one, other=other: one @ other, size, seconds / 4))  # type: ignore[misc]
        if dtype == "float32":
            left, right = one.numpy(), other.numpy()
            rates.append(_rate(lambda left=left, right=right: left @ right, size, seconds / 4))  # type: ignore[misc]
    return max(rates)


def count_gflop(model: Any, lengths: Sequence[float]) -> list[float] | None:
    """Matrix arithmetic that a model needs for recordings of so many seconds, in GFLOP each.

    torch's counter sees matrix products and convolutions. It has no entry for the fused
    attention of a CPU, which is therefore taken apart into the two products that it is. Norms,
    activations and softmax are left out: they are below a hundredth. None where the model
    cannot be run without its weights.
    """
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    model = model.to("meta").eval()
    counts = []
    for seconds in lengths:
        counter = FlopCounterMode(display=False)
        try:
            with counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
                model(torch.zeros(1, round(seconds * RATE), device="meta"))
        except (RuntimeError, NotImplementedError, ValueError):
            return None
        counts.append(counter.get_total_flops() / 1e9)
    return counts


def read_peak() -> float | None:
    """Peak memory of this process in MiB; None where the system does not tell."""
    if STATUS.is_file():
        lines = STATUS.read_text(encoding="utf-8").splitlines()
        peaks = [line for line in lines if line.startswith("VmHWM")]
        return float(peaks[0].split()[1]) / 1024.0 if peaks else None
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 2.0**20 if platform.system() == "Darwin" else 2.0**10
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) / unit


def _rate(multiply: Callable[[], object], size: int, seconds: float) -> float:
    """GFLOP per second of the best of several products."""
    multiply()
    times: list[float] = []
    until = time.perf_counter() + seconds
    while not times or time.perf_counter() < until:
        began = time.perf_counter()
        multiply()
        times.append(time.perf_counter() - began)
    return float(2.0 * size**3 / np.min(times) / 1e9)


def _read_processor() -> tuple[str, set[str]]:
    """Name and abilities of the processor, where Linux tells."""
    if not CPU_INFO.is_file():
        return platform.processor() or platform.machine(), set()
    facts: dict[str, str] = {}
    for line in CPU_INFO.read_text(encoding="utf-8").splitlines():
        key, _, value = line.partition(":")
        facts.setdefault(key.strip(), value.strip())
    flags = facts.get("flags") or facts.get("Features") or ""
    return facts.get("model name", platform.machine()), set(flags.split())
