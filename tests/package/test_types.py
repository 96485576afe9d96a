"""A user's script under the strict settings of mypy and pyright, against the built wheel."""

import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import emoser
import emoser.finetune

SCRIPT = """\
from collections.abc import Iterator
from typing import assert_type

import numpy as np
from numpy.typing import NDArray

from emoser import EmoserError, EmotionClassifier, EmotionStream, Prediction, Segment, Timeline

classifier = EmotionClassifier.from_pretrained("emoser-tiny", device="cpu")
files = ["a.wav", "b.wav"]
assert_type(classifier.predict("a.wav"), Prediction)
assert_type(classifier.predict_batch(files), list[Prediction])
assert_type(classifier.predict_batch(files, on_error="raise"), list[Prediction])
assert_type(classifier.predict_batch(files, on_error="return"), list[Prediction | EmoserError])
assert_type(classifier.iter_predictions(files), Iterator[Prediction])
assert_type(
    classifier.iter_predictions(files, on_error="return"), Iterator[Prediction | EmoserError]
)
assert_type(classifier.embed(files), NDArray[np.float32])
assert_type(
    classifier.embed(files, on_error="return"), list[NDArray[np.float32] | EmoserError]
)
choice: str = input()
assert_type(classifier.predict_batch(files, on_error=choice), list[Prediction | EmoserError])
labels: list[str | None] = [answer.label for answer in classifier.predict_batch(files)]
assert_type(classifier.timeline("a.wav"), Timeline)
stream = EmotionStream(classifier, sampling_rate=16000)
assert_type(stream.push(np.zeros(160, np.float32)), list[Segment])
"""
MISSPELT = {
    "EmotionClasifier": "from emoser import EmotionClasifier\n",
    "cross_valdate": "from emoser.finetune import cross_valdate\n",
    "BulkJobb": "from emoser.bulk import BulkJobb\n",
    "serv": "from emoser.demo import serv\n",
}
PACKAGE = Path(emoser.__file__).parent
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder into which the wheel of the working tree is installed."""
    wheels, target = tmp_path_factory.mktemp("wheels"), tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    build = [*pip, "wheel", "--no-deps", "--wheel-dir", str(wheels), str(ROOT)]
    built = subprocess.run(build, capture_output=True, text=True)
    if "No matching distribution found for hatch" in built.stderr:
        pytest.skip("the build backend is neither installed nor can it be fetched")
    assert built.returncode == 0, built.stderr
    (wheel,) = wheels.glob("emoser-*.whl")
    install = [*pip, "install", "--no-deps", "--target", str(target), str(wheel)]
    subprocess.run(install, capture_output=True, check=True)
    assert (target / "emoser" / "py.typed").exists()
    return target


def run_mypy(script, installed):
    pytest.importorskip("mypy", reason="mypy is not installed")
    options = ["--strict", "--follow-imports=silent", "--config-file="]
    command = [sys.executable, "-m", "mypy", *options, script.name]
    paths = {"MYPYPATH": str(installed)}
    return subprocess.run(
        command, cwd=script.parent, env=os.environ | paths, capture_output=True, text=True
    )


def run_pyright(script, installed):
    own = Path(sys.executable).with_name("pyright")
    pyright = str(own) if own.exists() else shutil.which("pyright")
    if pyright is None:
        pytest.skip("pyright is not installed")
    settings = {"typeCheckingMode": "strict", "extraPaths": [str(installed)]}
    (script.parent / "pyrightconfig.json").write_text(json.dumps(settings))
    if subprocess.run([pyright, "--version"], capture_output=True).returncode:
        pytest.skip("pyright is installed but its program cannot be fetched or run")
    command = [pyright, "--pythonpath", sys.executable, script.name]
    return subprocess.run(command, cwd=script.parent, capture_output=True, text=True)


@pytest.mark.slow
@pytest.mark.parametrize("check", [run_mypy, run_pyright], ids=["mypy", "pyright"])
def test_a_users_script_has_the_types_it_expects(tmp_path, installed, check):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    run = check(script, installed)
    assert run.returncode == 0, run.stdout
    script.write_text("".join(MISSPELT.values()))
    run = check(script, installed)
    assert run.returncode == 1
    for place, name in enumerate(MISSPELT, start=1):
        assert any(f":{place}:" in line and name in line for line in run.stdout.splitlines())


def test_the_package_says_that_it_is_typed_and_lists_its_public_names():
    assert (PACKAGE / "py.typed").exists()
    assert dir(emoser) == sorted([*emoser.__all__, "__version__"])
    assert find_spec("emoser").origin == emoser.__file__
    with pytest.raises(AttributeError, match="EmotionClasifier"):
        emoser.EmotionClasifier  # noqa: B018
    assert dir(emoser.finetune) == sorted(emoser.finetune.__all__)
    with pytest.raises(AttributeError, match="cross_valdate"):
        emoser.finetune.cross_valdate  # noqa: B018
