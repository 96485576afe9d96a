"""The page of the service in Chromium on loopback: an upload, and the microphone.

Its MediaRecorder records a fake device that plays a clip. Set EMOSER_CHROMIUM to the path of a
browser.
"""

import json
import time
from urllib.parse import urlparse

import pytest
from support.browser import CLIPS, open_chromium
from support.servers import running

from emoser import EmotionClassifier

pytest.importorskip("fastapi")
pytestmark = pytest.mark.slow

TIMEOUT = 120_000  # milliseconds; the machine may be busy


@pytest.fixture(scope="module")
def chromium():
    with open_chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def tokens(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokens") / "tokens"
    path.write_text("secret")
    return str(path)


@pytest.fixture
def page(chromium, tokens):
    from emoser.serve.model import load_classifier
    from emoser.serve.options import ServeOptions

    faults, hosts = [], set()
    classifier = load_classifier(ServeOptions(model="emoser-tiny"))
    with running(classifier, token_file=tokens) as client:
        context = chromium.new_context(permissions=["microphone"])
        context.set_default_timeout(TIMEOUT)
        context.on("request", lambda request: hosts.add(urlparse(request.url).hostname))
        page = context.new_page()
        page.on("pageerror", lambda fault: faults.append(str(fault)))
        page.on("console", lambda line: line.type == "error" and faults.append(line.text))
        page.goto(str(client.base_url))
        page.fill("#token", "secret")
        yield page
        context.close()
    assert faults == []
    assert hosts == {"127.0.0.1"}


def wait(page, holds):
    """Wait for an expression; `wait_for_function` needs an `eval`, which the page forbids."""
    deadline = time.monotonic() + TIMEOUT / 1000
    while not page.evaluate(holds):
        assert time.monotonic() < deadline, page.inner_text("body")
        page.wait_for_timeout(100)


def test_an_upload_shows_the_prediction_of_the_library(page):
    page.set_input_files("#file", str(CLIPS / "loud.flac"))
    page.wait_for_selector("#endpoint option >> nth=2", state="attached")
    page.click("button:has-text('Send')")
    wait(page, "document.querySelector('#result').textContent.startsWith('{')")
    shown = json.loads(page.inner_text("#result"))
    expected = EmotionClassifier.from_pretrained("emoser-tiny").predict(CLIPS / "loud.flac")
    assert (shown["source"], shown["label"]) == ("loud.flac", expected.label)
    assert page.locator("#endpoints li").count() == 7


def test_a_recording_of_media_recorder_is_analysed_while_it_runs(page):
    page.evaluate(
        """() => { window.received = []; const Original = WebSocket;
        window.WebSocket = class extends Original { constructor(...given) { super(...given);
          this.addEventListener("message", e => received.push(JSON.parse(e.data)));
          this.addEventListener("close", e => { window.closeCode = e.code; }); } }; }"""
    )
    page.click("text=Turn the microphone on")
    wait(page, "received.filter(m => m.type === 'window').length >= 3")
    assert page.evaluate("received.some(m => m.type === 'done')") is False
    page.click("text=Turn the microphone off")
    wait(page, "Number.isInteger(window.closeCode)")
    messages = page.evaluate("received")
    assert page.evaluate("closeCode") == 1000
    assert messages[0]["type"] == "ready"
    assert messages[-1]["type"] == "done"
    assert messages[-1]["reason"] == "end"
    segments = [item for item in messages if item["type"] == "segment"]
    assert segments[0]["start"] == 0
    assert segments[-1]["end"] == messages[-1]["seconds"]
    assert any(item["kind"] != "silence" for item in segments)
    scores = [item["scores"] for item in messages if item["type"] == "window" and item["scores"]]
    assert all(abs(sum(item.values()) - 1) < 1e-6 for item in scores)
