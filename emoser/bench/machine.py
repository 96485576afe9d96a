"""Clips to time engines with, the arithmetic of a model, and the limits of the machine."""

import platform
import time
from collections.abc import Callable, Sequence
from functools import partial
from operator import matmul
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from emoser.audio.limits import SAMPLING_RATE
from emoser.runtimes.processor import count_cores, read_processor

STATUS = Path("/proc/self/status")
BFLOAT16 = {"avx512_bf16", "amx_bf16", "bf16"}
INT8 = {"avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm"}
SIZES = (1024, 2048)  # of the square matrices that are multiplied
CLIP_SECONDS = 4.0  # of the clip whose latency is measured
MIXED_SECONDS = (0.7, 1.0, 1.6, 2.2, 2.9, 4.0, 5.5, 8.0)


def make_clip(
    seconds: float, *, sampling_rate: int = SAMPLING_RATE, seed: int = 0
) -> npt.NDArray[np.float32]:
    """Noise of varying loudness, about as loud as speech, (T,).

    The time that an engine takes does not depend on the content of a clip.

    Example:
        >>> make_clip(0.5).shape
        (8000,)
    """
    generator = np.random.default_rng(seed)
    count = round(seconds * sampling_rate)
    envelope = 0.02 + 0.1 * np.abs(np.sin(np.linspace(0, 3 * seconds, count)))
    return (generator.standard_normal(count) * envelope).astype(np.float32)


def mixed_clips() -> list[npt.NDArray[np.float32]]:
    """Clips of `MIXED_SECONDS`, shuffled."""
    order = np.random.default_rng(0).permutation(len(MIXED_SECONDS))
    return [make_clip(MIXED_SECONDS[index], seed=index) for index in order.tolist()]


def describe_machine() -> dict[str, Any]:
    """Processor, usable cores, and native bfloat16 and int8 support (None if unknown)."""
    name, flags = read_processor()
    return {
        "processor": name,
        "cores": count_cores(),
        "system": platform.system(),
        "bfloat16": bool(flags & BFLOAT16) if flags else None,
        "int8": bool(flags & INT8) if flags else None,
    }


def time_calls(call: Callable[[], object], *, seconds: float, repeats: int = 1) -> list[float]:
    """Duration of each call; calls for `seconds` in all and at least `repeats` times."""
    times: list[float] = []
    until = time.perf_counter() + seconds
    while len(times) < repeats or time.perf_counter() < until:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return times


def measure_limit(dtype: str, *, seconds: float) -> float:
    """Rate of the fastest product of square matrices, in GFLOP per second.

    The maximum over torch, oneDNN with a packed matrix and, in float32, NumPy: none of them is the
    fastest on every processor.
    """
    import torch

    from emoser.runtimes.torch.linear import pack_linear

    rates = []
    for size in SIZES:
        matrix = torch.ones(size, size, dtype=getattr(torch, dtype))
        ways = [partial(matmul, matrix, matrix), partial(pack_linear(matrix, None), matrix)]
        if dtype == "float32":
            ways.append(partial(matmul, matrix.numpy(), matrix.numpy()))
        for multiply in ways:
            with torch.inference_mode():
                multiply()
                times = time_calls(multiply, seconds=seconds / (2 * len(ways)))
            rates.append(2.0 * size**3 / min(times) / 1e9)
    return max(rates)


def count_gflop(
    model: Any, lengths: Sequence[float], *, sampling_rate: int = SAMPLING_RATE
) -> list[float] | None:
    """Matrix arithmetic of a model for recordings of the given seconds, in GFLOP each.

    Matrix products and convolutions are counted by torch. Its counter has no entry for the fused
    attention kernel of the CPU, which is therefore replaced by separate products. Norms,
    activations and softmax are below one percent and left out. None if the model cannot run on
    the meta device.
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
                model(torch.zeros(1, round(seconds * sampling_rate), device="meta"))
        except (RuntimeError, NotImplementedError, ValueError):
            return None
        counts.append(counter.get_total_flops() / 1e9)
    return counts


def read_peak() -> float | None:
    """Peak memory of this process in MiB; None if the system does not report it."""
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
