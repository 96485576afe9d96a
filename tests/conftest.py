"""Fixtures shared by the whole suite."""

import os
from pathlib import Path

import pytest

if WORKERS := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "0")):
    # As many threads as processors in all, by whatever library a test or its processes compute.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // WORKERS)))

from hypothesis import HealthCheck, settings

import emoser.models.torchaudio_guard  # noqa: F401  # tests import transformers, beside any torch

# Machines are shared and slow at times; what is tested is the result, never the time.
settings.register_profile("emoser", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("emoser")


def pytest_addoption(parser):
    parser.addoption(
        "--store-notebooks",
        action="store_true",
        help="write the outputs of the notebooks that are tested into their files",
    )


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory):
    """Converted graphs of this session alone, for the processes that tests start too."""
    before = os.environ.get("EMOSER_CACHE")
    os.environ["EMOSER_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield
    if before is None:
        del os.environ["EMOSER_CACHE"]
    else:
        os.environ["EMOSER_CACHE"] = before


@pytest.fixture(scope="session")
def speech_data() -> Path:
    """The folder with real speech and its manifest.csv; the test is skipped without it."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("EMOSER_TEST_DATA", default))
    if not (folder / "manifest.csv").is_file():
        pytest.skip(f"no real speech in {folder}; set EMOSER_TEST_DATA")
    return folder
