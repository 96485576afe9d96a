"""A torchaudio that does not load must not stop anyone from predicting."""

import os
import subprocess
import sys

import pytest
from support.models import loud_model, small_config

from emoser.checkpoints.save import save_model

BROKEN = "raise OSError('libcudart.so.13: cannot open shared object file')"
PREDICT = """
import sys
import numpy as np
from emoser import EmotionClassifier
classifier = EmotionClassifier.from_pretrained(sys.argv[1], device="cpu")
noise = np.random.default_rng(0).standard_normal(16000) / 9
print(classifier.predict(noise, sampling_rate=16000).label)
"""
REQUIRE = """
from emoser.errors import DependencyError
from emoser.models.torchaudio_guard import require_torchaudio
try:
    require_torchaudio("SpecAugment")
except DependencyError as error:
    print(error)
"""


@pytest.fixture
def broken(tmp_path):
    """An environment in which torchaudio is installed and fails on import."""
    (tmp_path / "site" / "torchaudio").mkdir(parents=True)
    (tmp_path / "site" / "torchaudio" / "__init__.py").write_text(BROKEN)
    information = tmp_path / "site" / "torchaudio-2.11.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: torchaudio\nVersion: 2.11.0\n"
    )
    path = os.pathsep.join([str(tmp_path / "site"), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": path}


def run(code, environment, *words):
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, words)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_transformers_alone_cannot_be_imported_there(broken):
    done = run("from transformers import Wav2Vec2Model", broken)
    assert done.returncode != 0


def test_emoser_predicts_all_the_same(broken, tmp_path):
    folder = save_model(loud_model(small_config()), tmp_path / "model")
    done = run(PREDICT, broken, folder)
    assert done.stdout.strip() in ("neutral", "happy", "angry", "sad"), done.stderr


def test_what_needs_torchaudio_says_why_it_cannot_be_had(broken):
    done = run(REQUIRE, broken)
    assert "SpecAugment needs torchaudio" in done.stdout
    assert "libcudart.so.13" in done.stdout
    assert "pip install" in done.stdout


def test_a_transformers_that_came_first_is_told_of_it(broken, tmp_path):
    folder = save_model(loud_model(small_config()), tmp_path / "model")
    done = run(f"import transformers\n{PREDICT}", broken, folder)
    assert done.stdout.strip() in ("neutral", "happy", "angry", "sad"), done.stderr


@pytest.mark.slow
def test_the_doctor_examines_the_checkpoint_and_says_what_is_wrong_with_torchaudio(broken):
    code = "import sys; from emoser.cli import main; sys.exit(main(['doctor']))"
    done = run(code, broken)
    assert done.returncode == 0, done.stderr
    assert "result       sound" in done.stdout
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("torchaudio")]
    assert "libcudart.so.13" in line
    assert "prediction works without it" in line
