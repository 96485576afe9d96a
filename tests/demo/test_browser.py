"""The demo in Chromium on loopback: uploads, errors, downloads, keyboard, phone, microphone.

All connections of the server process and all requests of the page are logged. Set EMOSER_CHROMIUM
to the path of a browser, and EMOSER_SCREENSHOTS to a folder to keep screenshots.
"""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from urllib.parse import urlparse

import numpy as np
import pytest
import soundfile
from support.browser import CLIPS, open_chromium
from support.models import loud_model, small_config

from emoser import EmotionClassifier
from emoser.checkpoints.save import save_model

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
TIMEOUT = 120_000  # milliseconds; the machine may be busy
DESKTOP, PHONE = (1280, 900), (390, 844)
LOOPBACK = ("127.0.0.1", "::1", "localhost")
SERVER = """
import sys
log = open(sys.argv[1], "a", buffering=1)
def watch(event, details):
    if event in ("socket.connect", "socket.sendto"):
        address = details[1]
        log.write(f"{address if isinstance(address, str) else address[0]}\\n")
    elif event == "socket.getaddrinfo":
        log.write(f"{details[0]}\\n")
sys.addaudithook(watch)
from emoser.cli import main
raise SystemExit(main(sys.argv[2:]))
"""
CONTRAST = (Path(__file__).parents[1] / "support" / "contrast.js").read_text(encoding="utf-8")
LETTERS = """() => [...document.querySelectorAll("#result svg")].filter(e => e.clientWidth)
  .map(e => 11 * e.clientWidth / e.viewBox.baseVal.width)"""
FOCUS = """() => { const e = document.activeElement; return [e.tagName.toLowerCase(),
  (e.getAttribute("aria-label") || e.innerText || e.value || "").trim(),
  getComputedStyle(e).outlineStyle] }"""


@pytest.fixture(scope="module")
def chromium():
    pytest.importorskip("gradio", reason='needs pip install "emoser[demo]"')
    with open_chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def other_model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "other"
    return str(save_model(loud_model(small_config()), folder))


class Server:
    """`emoser demo` in a process of its own."""

    def __init__(self, folder, model):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.log, self.temporary = folder / "connections", folder / "temporary"
        self.temporary.mkdir()
        words = ["demo", "--port", str(port), "--model", "emoser-tiny", "--model", model, "--json"]
        environment = {**os.environ, "TMPDIR": str(self.temporary), "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVER, str(self.log), *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**environment, "PYTHONPATH": str(ROOT)},
        )
        first = self.process.stdout.readline()
        self.address = json.loads(first)["address"]

    def hosts(self):
        """All hosts that it connected to or looked up."""
        return set(self.log.read_text().split())

    def uploads(self):
        """Non-empty files in its temporary folder."""
        return [
            item
            for item in self.temporary.rglob("*")
            if item.is_file() and item.stat().st_size and "vibe" not in item.parts
        ]

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60), self.process.stderr.read()


@pytest.fixture(scope="module")
def server(chromium, tmp_path_factory, other_model):
    running = Server(tmp_path_factory.mktemp("server"), other_model)
    yield running
    status, errors = running.stop()
    assert status == 0, errors
    assert "Traceback" not in errors
    assert running.uploads() == []
    assert running.hosts() <= {*LOOPBACK, "None"}


@pytest.fixture
def open_page(chromium, server):
    """Opens the page with a size and a theme; checks that no request went to another host."""
    contexts, hosts, faults = [], set(), []

    def open_one(size=DESKTOP, theme="light"):
        context = chromium.new_context(
            viewport={"width": size[0], "height": size[1]},
            color_scheme=theme,
            device_scale_factor=2,
            permissions=["microphone"],
        )
        context.set_default_timeout(TIMEOUT)
        contexts.append(context)
        context.on("request", lambda request: hosts.add(urlparse(request.url).hostname))
        page = context.new_page()
        page.on("websocket", lambda opened: hosts.add(urlparse(opened.url).hostname))
        page.on("pageerror", lambda fault: faults.append(str(fault)))
        page.goto(server.address)
        page.wait_for_selector("#upload")
        return page

    yield open_one
    for context in contexts:
        context.close()
    assert hosts <= {"127.0.0.1", None}  # None: data URLs
    assert faults == []


def send(page, path):
    """Upload a file."""
    page.set_input_files("#upload input[type=file]", str(path))


def picture(page, name):
    folder = os.environ.get("EMOSER_SCREENSHOTS")
    if folder:
        page.screenshot(path=str(Path(folder) / f"{name}.png"), full_page=True)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_the_result_of_an_upload_is_legible(open_page, size, theme):
    page = open_page(size, theme)
    send(page, CLIPS / "telephone.wav")
    page.wait_for_selector(".emoser-label")
    expected = EmotionClassifier.from_pretrained("emoser-tiny").predict(CLIPS / "telephone.wav")
    assert page.inner_text(".emoser-label") == f"{expected.label} {expected.score:.2f}"
    assert "telephone bandwidth" in page.inner_text(".emoser-flags")
    page.wait_for_function("document.querySelector('#result audio').duration > 2")
    picture(page, f"answer-{size[0]}-{theme}")
    assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
    letters = page.evaluate(LETTERS)
    assert len(letters) == 2  # one of the two timelines is displayed
    assert min(letters) >= 12
    assert page.evaluate(CONTRAST) == []


def test_downloads_hold_the_result(open_page):
    page = open_page()
    send(page, CLIPS / "loud.flac")
    page.wait_for_selector(".emoser-label")
    files = {}
    for name in ("JSON", "SRT"):
        with page.expect_download() as started:
            page.click(f".emoser-downloads a:has-text('{name}')")
        files[started.value.suggested_filename] = Path(started.value.path()).read_text("utf-8")
    timeline = EmotionClassifier.from_pretrained("emoser-tiny").timeline(CLIPS / "loud.flac")
    assert files["loud.srt"] == timeline.to_srt()
    segments = [item.to_dict() for item in timeline.segments]
    shown = json.loads(files["loud.json"])["timeline"]["segments"]
    assert [(item["start"], item["end"], item["label"]) for item in shown] == [
        (item["start"], item["end"], item["label"]) for item in segments
    ]


def test_an_invalid_file_gives_one_sentence_and_the_next_one_is_analysed(open_page, tmp_path):
    page = open_page(PHONE)
    bad = tmp_path / "bad.wav"
    bad.write_text("this is not audio")
    send(page, bad)
    page.wait_for_selector(".emoser-error")
    assert "bad.wav cannot be decoded as audio" in page.inner_text(".emoser-error")
    assert "Traceback" not in page.content()
    picture(page, "wrong-file-390")
    page.click("#upload button[aria-label=Clear]")
    page.wait_for_selector(".emoser-error", state="detached")
    send(page, CLIPS / "loud.flac")
    page.wait_for_selector(".emoser-label")


def test_file_names_are_not_executed(open_page, tmp_path):
    page = open_page()
    name = "${window.ran=1}{{x}}<img src=x onerror=window.ran=1>.flac"
    send(page, shutil.copy(CLIPS / "loud.flac", tmp_path / name))
    page.wait_for_selector(".emoser-label")
    assert page.evaluate("window.ran") is None
    assert page.query_selector("#result img") is None


def test_a_long_upload_shows_progress_and_is_deleted_when_cleared(open_page, server, tmp_path):
    page = open_page(PHONE)
    path = tmp_path / "long.wav"
    noise = np.random.default_rng(0).normal(0, 0.05, 16_000 * 1200)
    soundfile.write(path, noise, 16_000)
    send(page, path)
    page.wait_for_function("/[0-9.]+ ?%/.test(document.querySelector('#result').innerText)")
    first = float(re.search(r"([0-9.]+) ?%", page.inner_text("#result")).group(1))
    picture(page, "progress-390")
    page.wait_for_function(
        f"parseFloat(/([0-9.]+) ?%/.exec(document.querySelector('#result').innerText)[1]) > {first}"
    )
    page.click("#upload button[aria-label=Clear]")
    page.wait_for_function("!document.querySelector('#result').innerText.trim()")
    wait_until(lambda: server.uploads() == [])


def wait_until(holds, seconds=60):
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_leaving_the_page_deletes_the_upload(open_page, server):
    page = open_page()
    send(page, CLIPS / "bright.mp3")
    page.wait_for_selector(".emoser-label")
    assert [item.name for item in server.uploads()] == ["bright.mp3"]
    page.close()
    wait_until(lambda: server.uploads() == [])


def test_another_model_can_be_chosen_for_the_same_recording(open_page, other_model):
    page = open_page()
    send(page, CLIPS / "loud.flac")
    page.wait_for_selector(".emoser-facts:has-text('model emoser-tiny')")
    page.click("#model input")
    page.click(f"[role=option]:has-text('{other_model}')")
    page.wait_for_selector(".emoser-facts:has-text('model other')")
    page.fill("#model input", "nonsense")
    page.keyboard.press("Enter")
    page.wait_for_selector(".emoser-error:has-text('nonsense')")
    assert "nor a Hub id" in page.inner_text(".emoser-error")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_microphone_can_be_recorded(open_page, theme):
    page = open_page(theme=theme)
    assert page.evaluate(CONTRAST) == []
    assert not page.is_visible("#recorder button[aria-label=Clear]")  # there is nothing to clear
    page.click("#recorder button:has-text('Record')")
    page.wait_for_timeout(2500)
    assert page.evaluate(CONTRAST) == []
    page.click("#recorder button:has-text('Stop')")
    page.wait_for_selector(".emoser-facts:has-text('audio.wav')")
    page.wait_for_selector("#recorder button[aria-label=Clear]")
    assert page.evaluate(CONTRAST) == []


def test_the_channels_of_a_call_are_shown_separately(open_page, tmp_path):
    page = open_page()
    voice, rate = soundfile.read(CLIPS / "plain.wav")
    soundfile.write(tmp_path / "call.wav", np.stack([voice, np.zeros_like(voice)], axis=1), rate)
    send(page, tmp_path / "call.wav")
    page.wait_for_selector(".emoser-label")
    page.click("#channels input")
    page.wait_for_selector(".emoser-label:has-text('Channel 1 (right): No speech')")
    assert page.evaluate(CONTRAST) == []


def test_the_live_microphone_is_analysed_without_a_gap(open_page, server):
    page = open_page(PHONE)
    page.click("role=tab[name='Live']")
    clicked = time.monotonic()
    page.click("text=Turn the microphone on")
    page.wait_for_selector(".emoser-live .emoser-facts:has-text('analysed')")
    started = time.monotonic()
    page.wait_for_selector(".emoser-live svg")
    page.wait_for_timeout(6000)
    picture(page, "live-390")
    shortest = time.monotonic() - started
    page.click("text=Turn the microphone off")
    page.wait_for_selector("text=Turn the microphone on")
    longest = time.monotonic() - clicked
    wait_until(lambda: live_seconds(page) >= shortest - 1)
    last = None
    while last != (last := live_seconds(page)):  # until the server has analysed all of it
        page.wait_for_timeout(3000)
    assert last < longest + 1
    ends = re.findall(r"(\d+):([\d.]+) - (\d+):([\d.]+)", page.inner_text(".emoser-segments"))
    assert ends[-1][:2] == ("0", "00.00")
    assert all(later[:2] == earlier[2:] for later, earlier in pairwise(ends))
    assert server.uploads() == []


def live_seconds(page):
    """Duration of the audio that the page shows as analysed."""
    minutes, seconds = page.inner_text(".emoser-live .emoser-facts").split()[0].split(":")
    return 60 * int(minutes) + float(seconds)


def test_everything_can_be_reached_and_operated_with_the_keyboard(open_page):
    page = open_page()
    page.focus("#model input")
    reached = walk(page, 14)
    for name in ("Recording", "Record"):
        assert any(name in text for _, text, _ in reached), (name, reached)
    choose_file(page, CLIPS / "loud.flac")
    page.wait_for_selector(".emoser-label")
    page.focus("#recorder button")
    reached = walk(page, 20)
    kinds = [kind for kind, _, _ in reached]
    assert "audio" in kinds
    assert "summary" in kinds
    own = [item for item in reached if item[0] == "summary" or item[1].startswith("Download")]
    assert [text for kind, text, _ in own if kind == "a"] == [
        "Download JSON",
        "Download subtitles (SRT)",
    ]
    assert all(outline == "solid" for _, _, outline in own)
    page.focus("#result summary")
    page.keyboard.press("Enter")
    assert page.is_visible("#result table")
    picture(page, "table-1280")
    page.focus("role=tab[name='Recording']")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_selector("#live button", state="visible")
    page.focus("#live button")
    page.keyboard.press("Space")
    page.wait_for_selector("#live button[aria-pressed=true]")
    page.keyboard.press("Space")
    page.wait_for_selector("#live button[aria-pressed=false]")


def choose_file(page, path):
    """Press Enter on the upload box until it opens the file dialog; its handler is added late."""
    waiting = []
    page.on("filechooser", lambda chooser: waiting.append(chooser))
    for _ in range(20):
        page.focus("#upload button")
        page.keyboard.press("Enter")
        page.wait_for_timeout(1000)
        if waiting:
            waiting[0].set_files(str(path))
            return
    pytest.fail("Enter does not open the file dialog")


def walk(page, count):
    """The elements that Tab reaches: tag, name and outline."""
    reached = []
    for _ in range(count):
        page.keyboard.press("Tab")
        reached.append(tuple(page.evaluate(FOCUS)))
    return reached
