"""The fuzz command finds nothing in a few cases of each part, and the same cases everywhere."""

import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

FUZZ = Path(__file__).parents[2] / "examples" / "fuzz"
COUNTS = {"audio": 60, "checkpoints": 30, "exports": 12, "kills": 20}


@pytest.mark.slow
@pytest.mark.parametrize("part", COUNTS)
def test_damage_and_kills_end_in_the_right_answer_or_an_error_of_emoser(part):
    if part == "kills" and shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    words = ["--parts", part, "--count", str(COUNTS[part]), "--minutes", "40"]
    done = subprocess.run(
        [sys.executable, str(FUZZ / "fuzz.py"), *words], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr[-3_000:]
    assert f"| {part} | {COUNTS[part]} |" in done.stdout


def test_a_case_is_the_same_damage_on_every_machine(monkeypatch):
    monkeypatch.syspath_prepend(str(FUZZ))
    import mutations

    dice = random.Random("audio 3")
    assert (
        mutations.mutate_bytes(bytes(range(16)), dice).hex() == "1bbc02030405060708090a0b0c0d0e0f"
    )
    dice = random.Random("checkpoints 3")
    changed = mutations.mutate_json(b'{"a": 1, "b": [1, 2]}', dice)
    assert changed == b'{"a": 0.0, "b": 1000000, "x": 1}'
