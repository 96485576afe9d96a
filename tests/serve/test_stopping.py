"""`emoser serve` as a process: SIGTERM under load, workers, a port in use, the factory."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.multiprocess import MultiProcessCollector

from emoser import load_audio
from emoser.cli import main

pytest.importorskip("fastapi")
pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
CLIPS = ROOT / "examples" / "audio"
CLIP = (CLIPS / "loud.flac").read_bytes()
CLIENTS = 8


def start(*words, command=("-m", "emoser", "serve", "--json", "--port", "0"), **environment):
    settings = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment}
    return subprocess.Popen(
        [sys.executable, *command, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=settings,
    )


def address_of(process):
    line = process.stdout.readline()
    assert line, process.stderr.read()
    return json.loads(line)["address"]


def wait_ready(address):
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        try:
            if httpx.get(f"{address}/ready", timeout=5).status_code == 200:
                return
        except httpx.HTTPError:
            time.sleep(0.2)
    raise AssertionError("the service is not ready")


def accepted(address):
    """The number of predictions that the service has answered, by its own count."""
    text = httpx.get(f"{address}/metrics").text
    found = re.search(r'emoser_requests_total\{endpoint="/v1/predict",status="200"\} (\d+)', text)
    return int(found.group(1)) if found else 0


def test_workers_of_a_killed_service_stop(tmp_path):
    process = start("--model", "emoser-tiny", "--workers", "2", TMPDIR=str(tmp_path))
    address = address_of(process)
    wait_ready(address)
    process.kill()
    process.wait()
    deadline = time.monotonic() + 60
    with suppress(httpx.ConnectError):
        while True:
            assert time.monotonic() < deadline
            httpx.get(f"{address}/ready", timeout=5)
            time.sleep(0.2)
    again = start("--model", "emoser-tiny", "--workers", "2", TMPDIR=str(tmp_path))
    wait_ready(address_of(again))
    again.terminate()
    assert again.wait(60) == 0
    assert list(tmp_path.glob("emoser-*")) == []


class Clients:
    """Clients that send requests until the service is gone, and what became of each."""

    def __init__(self, address):
        self.answers, self.cut = [], []
        self._address = address
        self._threads = [threading.Thread(target=self._work) for _ in range(CLIENTS)]
        for thread in self._threads:
            thread.start()

    def _work(self):
        with httpx.Client(base_url=self._address, timeout=60) as client:
            while True:
                try:
                    answer = client.post("/v1/predict", content=CLIP)
                except httpx.ConnectError:  # no longer accepted
                    return
                except httpx.TransportError as error:
                    self.cut.append(error)
                    return
                self.answers.append(answer)
                if answer.status_code != 200:
                    return

    def join(self):
        for thread in self._threads:
            thread.join(90)


def counted(folder):
    """Answered predictions by status, as the service counted them until its end."""
    registry = CollectorRegistry()
    MultiProcessCollector(registry, path=str(folder))
    return {
        item.labels["status"]: item.value
        for family in registry.collect()
        for item in family.samples
        if item.name == "emoser_requests_total" and item.labels["endpoint"] == "/v1/predict"
    }


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def start_uvicorn(*words, **settings):
    """The service under uvicorn by its factory, with settings of the environment; its address."""
    port = str(free_port())
    command = ("-m", "uvicorn", "--factory", "emoser.serve:create_app", "--port", port)
    settings = {"EMOSER_SERVE_MODEL": "emoser-tiny", **settings}
    words = (*words, "--log-level", "error")
    return start(*words, command=command, **settings), f"http://127.0.0.1:{port}"


def start_kind(kind, **settings):
    """A running service of one of `KINDS`, and its address."""
    if kind.startswith("uvicorn"):
        process, address = start_uvicorn("--workers", "2", **settings)
    else:
        workers = ("--workers", "2") if kind == "workers" else ()
        process = start("--model", "emoser-tiny", *workers, **settings)
        address = address_of(process)
    wait_ready(address)
    return process, address


KINDS = ("process", "workers", "uvicorn-workers")


@pytest.mark.parametrize("kind", KINDS)
def test_sigterm_under_load_loses_no_accepted_request(kind, tmp_path):
    process, address = start_kind(kind, PROMETHEUS_MULTIPROC_DIR=str(tmp_path))
    clients = Clients(address)
    while len(clients.answers) < 3 * CLIENTS:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    clients.join()
    assert process.wait(60) == 0
    errors = process.stderr.read()
    assert errors == ""  # nothing was cut off, and no traceback
    codes = {answer.status_code for answer in clients.answers}
    assert codes <= {200, 503}
    received = Counter(str(answer.status_code) for answer in clients.answers)
    assert received == counted(tmp_path)  # whatever the service has accepted, a client has got
    for answer in clients.answers:
        assert set(answer.json()) >= ({"label"} if answer.status_code == 200 else {"error"})
    # A kept connection may be closed before a new request on it is read; none is after that.
    assert all("without sending" in str(error) or "reset" in str(error) for error in clients.cut)


@pytest.mark.parametrize("kind", KINDS)
def test_sigterm_ends_a_live_session_with_what_was_found(kind):
    from websockets.sync.client import connect

    process, address = start_kind(kind)
    query = "format=s16le&sampling_rate=16000"
    samples = 2 * (load_audio(CLIPS / "plain.wav") * 32767).astype("<i2").tobytes()
    try:
        with connect(f"{address.replace('http', 'ws')}/v1/stream?{query}") as session:
            session.send(samples)
            received = [json.loads(session.recv(30))["type"] for _ in range(2)]
            process.send_signal(signal.SIGTERM)
            messages = [json.loads(message) for message in session]
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0, process.stderr.read()
    assert received == ["ready", "window"]
    assert (messages[-1]["type"], messages[-1]["reason"]) == ("done", "stopping")
    assert messages[-1]["seconds"] == pytest.approx(len(samples) / 32_000, abs=1e-3)
    assert session.close_code == 1001


def test_a_request_that_is_running_at_sigterm_is_answered():
    process = start("--model", "emoser-tiny")
    address = address_of(process)
    parts = [CLIP[:1000], CLIP[1000:]]
    sent = threading.Event()

    def body():
        yield parts[0]
        sent.set()
        time.sleep(1.5)
        yield parts[1]

    answers = []
    thread = threading.Thread(
        target=lambda: answers.append(httpx.post(f"{address}/v1/predict", content=body()))
    )
    thread.start()
    assert sent.wait(20)
    time.sleep(0.3)
    process.send_signal(signal.SIGTERM)
    thread.join(60)
    assert process.wait(60) == 0
    assert answers[0].status_code == 200
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{address}/health")


def test_what_cannot_finish_in_time_gets_an_error():
    process = start("--model", "emoser-tiny", "--timeout", "2")
    address = address_of(process)
    sent = threading.Event()

    def body():
        yield CLIP[:1000]
        sent.set()
        time.sleep(4)
        yield CLIP[1000:]

    answers = []
    thread = threading.Thread(
        target=lambda: answers.append(httpx.post(f"{address}/v1/predict", content=body()))
    )
    thread.start()
    assert sent.wait(20)
    process.send_signal(signal.SIGTERM)
    thread.join(60)
    assert process.wait(60) == 0
    assert answers[0].status_code in (408, 503)
    assert "message" in answers[0].json()["error"]


def test_workers_share_the_port_and_their_metrics():
    process = start("--model", "emoser-tiny", "--workers", "2")
    address = address_of(process)
    wait_ready(address)
    for _ in range(20):
        assert httpx.post(f"{address}/v1/predict", content=CLIP).status_code == 200
    assert {accepted(address) for _ in range(8)} == {20}
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0, process.stderr.read()


def test_the_factory_runs_under_uvicorn_with_settings_of_the_environment():
    process, address = start_uvicorn(EMOSER_SERVE_MAX_SECONDS="1")
    try:
        wait_ready(address)
        answer = httpx.post(f"{address}/v1/predict", content=CLIP)
        assert (answer.status_code, "1 s" in answer.text) == (422, True)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def test_a_port_in_use_and_a_missing_model_end_with_a_sentence(capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        words = ["serve", "--port", str(taken.getsockname()[1]), "--model", "emoser-tiny"]
        assert main(words) == 5
    assert "choose another port" in capsys.readouterr().err
    assert main(["serve", "--port", "0", "--model", "no-such-model"]) == 4
    assert "no-such-model" in capsys.readouterr().err
