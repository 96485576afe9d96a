"""The processor of this machine: its name, what it computes in, and an identity for caches."""

import hashlib
import os
import platform
from functools import cache
from pathlib import Path

CPU_INFO = Path("/proc/cpuinfo")


@cache
def read_processor() -> tuple[str, frozenset[str]]:
    """Name and feature flags of the processor; no flags outside Linux."""
    if not CPU_INFO.is_file():
        return platform.processor() or platform.machine(), frozenset()
    first, _, _ = CPU_INFO.read_text(encoding="utf-8").partition("\n\n")  # all cores are alike
    pairs = (line.partition(":") for line in first.splitlines())
    facts = {key.strip(): value.strip() for key, _, value in pairs}
    flags = facts.get("flags") or facts.get("Features") or ""
    return facts.get("model name", platform.machine()), frozenset(flags.split())


def count_cores() -> int:
    """The cores that this process may use."""
    is_limited = hasattr(os, "sched_getaffinity")  # to some of the cores; on Linux
    return len(os.sched_getaffinity(0)) if is_limited else os.cpu_count() or 1


def identify_processor() -> str:
    """The same for processors of one kind with as many cores for this process."""
    name, flags = read_processor()
    text = "\n".join((name, str(count_cores()), *sorted(flags)))
    return hashlib.sha256(text.encode()).hexdigest()
