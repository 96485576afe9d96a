"""The benchmark for GPUs runs to its end without one."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "examples" / "benchmarks" / "gpu.py"
OPTIONS = ("--device", "cpu", "--shapes", "tiny", "--clips", "3", "--steps", "1")


@pytest.mark.slow
def test_it_prints_speed_exactness_and_training_of_every_precision():
    pytest.importorskip("accelerate")
    words = [sys.executable, SCRIPT, *OPTIONS, "--dtypes", "float32", "bfloat16"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    rows = done.stdout.splitlines()
    assert [row.split(":")[0] for row in rows] == [
        "tiny float32", "tiny bfloat16", "training, float32", "training, bfloat16",
    ]  # fmt: skip
    assert float(re.search(r"differ by (\S+)", rows[0])[1]) <= 1e-5
