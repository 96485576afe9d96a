"""Fixtures shared by the whole suite."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

import emoser.torchaudio_guard  # noqa: F401  # tests import transformers, beside any torch

# Machines are shared and slow at times; what is tested is the result, never the time.
settings.register_profile("emoser", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("emoser")


@pytest.fixture(scope="session")
def speech_data() -> Path:
    """The folder with real speech and its manifest.csv; the test is skipped without it."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("EMOSER_TEST_DATA", default))
    if not (folder / "manifest.csv").is_file():
        pytest.skip(f"no real speech in {folder}; set EMOSER_TEST_DATA")
    return folder
