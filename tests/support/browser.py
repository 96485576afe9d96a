"""A browser for tests of pages on loopback."""

import os
import shutil
from contextlib import contextmanager
from pathlib import Path

import pytest

CLIPS = Path(__file__).parents[2] / "examples" / "audio"


@contextmanager
def open_chromium():
    """A browser that resolves no host names and has a clip as its microphone.

    The test is skipped where there is none; EMOSER_CHROMIUM may hold its path.
    """
    api = pytest.importorskip("playwright.sync_api", reason="needs `pip install playwright`")
    names = ("chromium", "chromium-browser", "google-chrome")
    found = os.environ.get("EMOSER_CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if found is None:
        pytest.skip("needs Chromium on the path, or its place in EMOSER_CHROMIUM")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=found,
            args=[
                "--no-sandbox",
                "--use-fake-ui-for-media-stream",
                "--use-fake-device-for-media-stream",
                f"--use-file-for-fake-audio-capture={CLIPS / 'plain.wav'}",
                "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
            ],
        )
        yield browser
        browser.close()
