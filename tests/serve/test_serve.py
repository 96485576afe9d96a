"""The service over real sockets: answers of the library, limits, access, metrics, the page."""

import json
import re
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path

import httpx
import numpy as np
import pytest
import soundfile
from prometheus_client.parser import text_string_to_metric_families
from support.models import loud_model, small_config
from support.servers import running

from emoser import EmotionClassifier
from emoser.checkpoints.save import save_model
from emoser.cli import main

pytest.importorskip("fastapi")

from emoser.serve import ServeOptions
from emoser.serve.app import build_app
from emoser.serve.model import load_classifier

ROOT = Path(__file__).parents[2]
CLIPS = ROOT / "examples" / "audio"
CLIP = CLIPS / "loud.flac"
DEFAULTS = ServeOptions(model="emoser-tiny")


@pytest.fixture(scope="module")
def classifier():
    return load_classifier(DEFAULTS)


@pytest.fixture(scope="module")
def plain():
    """The classifier of a program that does not serve."""
    return EmotionClassifier.from_pretrained("emoser-tiny")


@pytest.fixture(scope="module")
def client(classifier):
    with running(classifier) as running_client:
        yield running_client


def test_a_model_of_another_rate_is_heard_at_it(tmp_path):
    save_model(loud_model(small_config(), sampling_rate=8_000), tmp_path / "model")
    options = ServeOptions(model=str(tmp_path / "model"), backend="torch", device="cpu")
    plain = EmotionClassifier.from_pretrained(options.model, backend="torch", device="cpu")
    with running(load_classifier(options)) as client:
        scores = client.post("/v1/predict", content=CLIP.read_bytes()).json()["scores"]
        timeline = client.post("/v1/timeline", content=CLIP.read_bytes()).json()
        vector = client.post("/v1/embed", content=CLIP.read_bytes()).json()["embedding"]
    assert scores == pytest.approx(dict(plain.predict(CLIP).scores), abs=1e-6)
    assert timeline["segments"] == plain.timeline(CLIP).to_dict()["segments"]
    assert vector == pytest.approx(plain.embed([CLIP])[0].tolist(), abs=1e-5)


class Waiting:
    """A classifier whose predictions wait for `go`; counts those that have begun."""

    def __init__(self, classifier):
        self.go, self.began, self.sources = threading.Event(), threading.Semaphore(0), []
        self._classifier = classifier

    def __getattr__(self, name):
        return getattr(self._classifier, name)

    def predict(self, file, **options):
        self.sources.append(file)
        self.began.release()
        assert self.go.wait(30)
        return self._classifier.predict(file, **options)


def error_of(answer, status, kind):
    """The message of an error answer with this status and type."""
    body = answer.json()
    assert answer.status_code == status, body
    assert set(body) == {"error"}
    assert set(body["error"]) == {"type", "message"}
    assert body["error"]["type"] == kind
    return body["error"]["message"]


def post(client, path="/v1/predict", content=None, **settings):
    return client.post(path, content=CLIP.read_bytes() if content is None else content, **settings)


@pytest.mark.parametrize("clip", sorted(CLIPS.iterdir()), ids=lambda path: path.name)
def test_a_form_and_a_raw_body_give_the_prediction_of_the_library(client, plain, clip):
    expected = {**plain.predict(clip).to_dict(), "source": clip.name}
    expected["scores"] = pytest.approx(expected["scores"], abs=1e-6)
    expected["score"] = pytest.approx(expected["score"], abs=1e-6)
    form = client.post("/v1/predict", files={"file": (clip.name, clip.read_bytes())})
    raw = post(client, content=clip.read_bytes(), params={"filename": clip.name})
    assert form.json() == expected
    assert raw.json() == form.json()


def test_options_of_the_query_are_those_of_the_library(client, plain, tmp_path):
    path = tmp_path / "stereo.wav"
    noise = np.random.default_rng(0).normal(0, 0.1, (48_000, 2)) * [1, 0.3]
    soundfile.write(path, noise, 16_000)
    body = path.read_bytes()
    for channel in ("mix", "left", "1"):
        answer = post(client, content=body, params={"channel": channel}).json()
        kept = int(channel) if channel.isdigit() else channel
        assert answer["scores"] == pytest.approx(dict(plain.predict(path, channel=kept).scores))
    query = {"hop_seconds": 0.5, "window_seconds": 2, "channel": "each", "vad": "none"}
    answer = post(client, "/v1/timeline", body, params={**query, "filename": "stereo.wav"}).json()
    query = {**query, "vad": None}
    expected = json.loads(json.dumps(plain.timeline(path, **query).to_dict()))
    assert [item["channel"] for item in answer["segments"]] == [0, 1]
    for one, other in zip(answer.pop("windows"), expected.pop("windows"), strict=True):
        assert one["scores"] == pytest.approx(other["scores"], abs=1e-6)
    assert [item["label"] for item in answer.pop("segments")] == [
        item["label"] for item in expected.pop("segments")
    ]
    assert {**answer, "source": ""} == {**expected, "source": ""}


TURNS = {
    "call.rttm": b"SPEAKER loud 1 0.0 1.0 <NA> <NA> anna\nSPEAKER loud 1 1.0 9.0 <NA> <NA> ben\n",
    "turns.json": b'{"segments": [{"start": 0, "end": 1, "speaker": "anna"}, '
    b'{"start": 1, "end": 10, "speaker": "ben"}]}',
}


@pytest.mark.parametrize("name", TURNS)
@pytest.mark.parametrize("as_text", [True, False])
def test_turns_have_the_answers_of_the_library(client, plain, name, as_text):
    expected = plain.predict_turns(CLIP, [(0.0, 1.0, "anna"), (1.0, 10.0, "ben")])
    form = {"files": {"file": (CLIP.name, CLIP.read_bytes())}}
    if as_text:
        form["data"] = {"turns": TURNS[name].decode()}
    else:
        form["files"]["turns"] = (name, TURNS[name])
    answer = client.post("/v1/turns", **form).json()
    assert [turn["speaker"] for turn in answer["turns"]] == ["anna", "ben"]
    for turn, other in zip(answer["turns"], expected, strict=True):
        assert turn["scores"] == pytest.approx(dict(other.scores), abs=1e-6)
        assert turn["quality"] == list(other.quality)
    assert [item["speaker"] for item in answer["speakers"]] == ["anna", "ben"]
    assert answer["source"] == CLIP.name


def test_speakers_are_adapted_to_where_the_query_asks_for_it(client, plain):
    turns = [(0.1 * number, 0.1 * number + 1.0, "anna") for number in range(8)]
    table = "".join(f"{start}\t{end}\t{name}\n" for start, end, name in [*turns, (0, 1, "ben")])
    form = {"files": {"file": (CLIP.name, CLIP.read_bytes()), "turns": ("x", table)}}
    answer = client.post("/v1/turns", params={"adapt_speakers": True}, **form).json()
    expected = plain.predict_turns(CLIP, turns, adapt_speakers=True)
    for turn, other in zip(answer["turns"], expected, strict=False):
        assert turn["scores"] == pytest.approx(dict(other.scores), abs=1e-6)
    notes = {item["speaker"]: item["adaptation"] for item in answer["speakers"]}
    assert notes["anna"] == {"adapted": True, "num_turns": 8, "note": "adapted by 8 turns"}
    assert notes["ben"]["note"].endswith("1 turn with speech; at least 8 are needed")
    untouched = client.post("/v1/turns", **form).json()
    assert [item["adaptation"] for item in untouched["speakers"]] == [None, None]
    assert untouched["turns"][0]["scores"] != answer["turns"][0]["scores"]
    assert untouched["turns"][8]["scores"] == pytest.approx(answer["turns"][8]["scores"])


def test_turns_that_cannot_be_answered_are_named(client, tmp_path):
    stereo = tmp_path / "call.wav"
    soundfile.write(stereo, np.zeros((16_000, 2)), 16_000)

    def send(turns, clip=CLIP, **params):
        files = {"file": (clip.name, clip.read_bytes()), "turns": ("x", turns)}
        return client.post("/v1/turns", files=files, params=params)

    assert "x" not in error_of(send(b"start,end\n1,b"), 422, "TurnsError")
    assert "larger than" in error_of(send(bytes(1_050_000)), 413, "TooLargeError")
    assert "no channel" in error_of(send(b"0\t1", channel="each"), 400, "ValueError")
    assert "decoded" in error_of(send(b"0\t1", Path(__file__)), 422, "AudioError")
    late = send(b"0\t1\n7\t8\n").json()["turns"]
    assert late[0]["label"] is not None
    assert "no samples between 7 and 8 s" in late[1]["error"]
    assert post(client, "/v1/turns", stereo.read_bytes()).json()["turns"] == []


def test_an_embedding_is_that_of_the_library(client, plain):
    answer = post(client, "/v1/embed").json()
    assert answer["embedding"] == pytest.approx(plain.embed([CLIP])[0].tolist(), abs=1e-4)
    assert answer["model"] == "emoser-tiny"


@pytest.mark.parametrize("content", [b"<html>", b"RIFF", b"no sound"], ids=repr)
def test_the_sentence_about_a_bad_recording_is_that_of_the_command(
    client, content, tmp_path, monkeypatch, capsys
):
    path = tmp_path / "bad.wav"
    path.write_bytes(content)
    answer = client.post("/v1/predict", files={"file": ("bad.wav", content)})
    message = error_of(answer, 422, "AudioError")
    monkeypatch.chdir(tmp_path)
    assert main(["predict", "bad.wav", "--model", "emoser-tiny", "--json"]) == 3
    assert message == json.loads(capsys.readouterr().out)["error"]


def test_names_of_uploads_reveal_no_folder_and_are_never_opened(client):
    files = {"file": ("../../etc/passwd", CLIP.read_bytes())}
    assert client.post("/v1/predict", files=files).json()["source"] == "passwd"


@pytest.mark.parametrize(
    ("path", "query", "words"),
    [
        ("/v1/timeline", {"hop_seconds": 9}, "hop_seconds is 9.0"),
        ("/v1/timeline", {"vad": "magic"}, "vad is 'magic'"),
        ("/v1/timeline", {"window_seconds": "x"}, "window_seconds is 'x'"),
        ("/v1/predict", {"channel": "both"}, "channel is 'both'"),
        ("/v1/predict", {"start": 1, "top_k": 2}, "start, top_k is not a parameter; use channel"),
        ("/v1/embed", {"channel": "left"}, "channel is not a parameter; use filename"),
        ("/v1/turns", {"vad": "none"}, "vad is not a parameter; use channel"),
    ],
)
def test_an_unsuitable_option_is_named(client, path, query, words):
    assert words in error_of(post(client, path, params=query), 400, "ValueError")


def test_requests_without_one_recording_are_refused(client):
    error_of(post(client, content=b""), 400, "UploadError")
    error_of(client.post("/v1/predict", files={"x": ("", b"")}), 400, "UploadError")
    files = [("file", ("a", b"1")), ("file", ("b", b"2"))]
    error_of(client.post("/v1/predict", files=files), 400, "UploadError")
    headers = {"Content-Type": "multipart/form-data"}
    error_of(post(client, content=b"x", headers=headers), 400, "UploadError")
    error_of(client.get("/v1/predict"), 405, "RequestError")
    error_of(client.get("/v2"), 404, "RequestError")


@pytest.mark.parametrize("kind", ["declared", "chunked", "form"])
def test_an_upload_beyond_the_limit_is_refused_before_it_is_read_whole(classifier, kind):
    body = bytes(3_000_000)
    with running(classifier, max_megabytes=1.5) as client:
        if kind == "form":
            answer = client.post("/v1/predict", files={"file": ("a.wav", body)})
        else:
            content = body if kind == "declared" else iter([body[:1000], body[1000:]])
            answer = client.post("/v1/predict", content=content)
        assert "1.5 MB" in error_of(answer, 413, "TooLargeError")
        assert post(client).status_code == 200


def test_a_recording_beyond_the_limit_is_refused_by_its_samples(plain):
    options = ServeOptions(model="emoser-tiny", max_seconds=2.0)
    with running(load_classifier(options), max_seconds=2.0) as client:
        assert "longer than 2 s" in error_of(post(client), 422, "AudioError")
        assert "longer than 2 s" in error_of(post(client, "/v1/timeline"), 422, "AudioError")
        assert "longer than 2 s" in error_of(post(client, "/v1/embed"), 422, "AudioError")


def test_more_requests_than_accepted_get_429_and_the_accepted_are_answered(classifier):
    waiting = Waiting(classifier)
    answers = []
    with running(waiting, max_requests=2) as client:
        threads = [threading.Thread(target=lambda: answers.append(post(client))) for _ in range(2)]
        for thread in threads:
            thread.start()
        for _ in threads:
            assert waiting.began.acquire(timeout=30)
        refused = post(client)
        assert "2 requests" in error_of(refused, 429, "BusyError")
        assert int(refused.headers["retry-after"]) >= 1
        assert client.get("/health").status_code == 200
        waiting.go.set()
        for thread in threads:
            thread.join()
        assert [answer.status_code for answer in answers] == [200, 200]
        assert post(client).status_code == 200


def test_an_answer_that_takes_too_long_is_given_up_and_its_recording_ends(classifier):
    waiting = Waiting(classifier)
    with running(waiting, timeout_seconds=0.3) as client:
        assert "0.3 s" in error_of(post(client), 504, "SlowAnswerError")
        assert waiting.sources[0].read(10) == b""
        waiting.go.set()


def test_a_slow_upload_is_given_up(classifier):
    def slow():
        yield b"RIFF"
        time.sleep(1.0)
        yield b"more"

    with running(classifier, timeout_seconds=0.2) as client:
        answer = client.post("/v1/predict", content=slow())
        assert "0.2 s" in error_of(answer, 408, "SlowUploadError")


def test_the_work_of_a_client_that_leaves_is_given_up(classifier):
    waiting = Waiting(classifier)
    with running(waiting, max_requests=1) as client:
        with pytest.raises(httpx.ReadTimeout):
            post(client, timeout=0.3)
        waiting.go.set()
        until(lambda: client.app.state.service.jobs.num_accepted == 0)
        assert waiting.sources[0].cancelled


def until(holds, seconds=20):
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_large_upload_has_no_name_on_the_disk_and_nothing_stays(classifier, tmp_path):
    waiting = Waiting(classifier)
    body = tmp_path / "long.wav"
    soundfile.write(body, np.zeros(16_000 * 120), 16_000)
    place = tmp_path / "temporary"
    place.mkdir()
    with pytest.MonkeyPatch.context() as patch, running(waiting) as client:
        patch.setattr("tempfile.tempdir", str(place))
        answers = []
        content = body.read_bytes()
        thread = threading.Thread(target=lambda: answers.append(post(client, content=content)))
        thread.start()
        assert waiting.began.acquire(timeout=30)
        assert list(place.iterdir()) == []
        waiting.go.set()
        thread.join()
        assert answers[0].json()["duration"] == 120
        assert waiting.sources[0].closed


def test_a_token_is_required_but_for_probes_and_the_page(classifier, tmp_path):
    tokens = tmp_path / "tokens"
    tokens.write_text("# of the two clients\nfirst secret\nsécond\n", encoding="utf-8")
    with running(classifier, token_file=str(tokens)) as client:
        for path in ("/health", "/ready", "/", "/openapi.json"):
            assert client.get(path).status_code == 200
        missing = post(client)
        assert "missing" in error_of(missing, 401, "TokenError")
        assert missing.headers["www-authenticate"] == "Bearer"
        for wrong in ("Bearer x", "Bearer first", "Bearer", "Basic first secret"):
            error_of(post(client, headers={"Authorization": wrong}), 401, "TokenError")
        error_of(client.get("/metrics"), 401, "TokenError")
        for token in ("first secret", "sécond"):
            right = {"Authorization": f"Bearer {token}".encode()}
            assert post(client, headers=right).status_code == 200
        assert "HTTPBearer" in client.get("/openapi.json").json()["components"]["securitySchemes"]


def test_a_token_file_without_a_token_is_refused(classifier, tmp_path):
    empty = tmp_path / "tokens"
    empty.write_text("# none\n\n")
    with pytest.raises(ValueError, match="holds no token"):
        build_app(ServeOptions(token_file=str(empty)), classifier)


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("localhost:80", True),
        ("127.0.0.1", True),
        ("[::1]:9", True),
        ("10.1.2.3", True),
        ("Voices.example.org:443", True),
        ("evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("", False),
        ("[", False),
        ("evil.example@localhost", False),
        ("127.0.0.1/evil.example", False),
        ("localhost#evil.example", False),
        ("localhost, evil.example", False),
    ],
)
def test_only_known_names_of_the_service_are_served(classifier, host, allowed):
    with running(classifier, allowed_hosts=("voices.example.org",)) as client:
        answer = client.get("/ready", headers={"Host": host})
        assert answer.status_code == (200 if allowed else 403 if host else answer.status_code)
        assert (answer.status_code == 200) == allowed


def test_a_request_for_two_hosts_is_refused(server):
    names = b"Host: evil.example\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    assert b"403 Forbidden" in send(server, b"GET /ready HTTP/1.1\r\n" + names)


def test_clients_that_send_endless_headers_or_none_are_left(server, monkeypatch):
    monkeypatch.setattr("emoser.serve.connections.HEADER_SECONDS", 0.3)
    began = time.monotonic()
    for begun in (b"", b"GET /ready HTTP/1.1\r\nHost: loc"):
        assert send(server, begun) == b""
    assert time.monotonic() - began < 10.0
    large = b"GET /ready HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 100_000
    assert b"200 OK" not in send(server, large)
    two = b"GET /ready HTTP/1.1\r\nHost: localhost\r\n\r\n" * 2
    assert send(server, two + b"GET").count(b"200 OK") == 2
    assert server.get("/ready").status_code == 200


def test_a_client_that_leaves_during_its_upload_is_no_bug(server, caplog):
    head = b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nRIFF"
    with connect(server) as client:
        client.sendall(head)
    deadline = time.monotonic() + 10
    while 'status="499"' not in server.get("/metrics").text:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert "failed" not in caplog.text


def connect(client):
    return socket.create_connection((client.base_url.host, client.base_url.port), timeout=30)


def send(client, data):
    """What the service answers to bytes, until it closes the connection."""
    with connect(client) as plain:
        plain.sendall(data)
        received = []
        with suppress(ConnectionResetError):
            while part := plain.recv(65_536):
                received.append(part)
    return b"".join(received)


@pytest.fixture
def server(classifier):
    with running(classifier) as client:
        yield client


def test_pages_of_other_sites_are_refused_unless_allowed(classifier):
    page = {"Origin": "https://page.example"}
    with running(classifier) as client:
        assert "page.example" in error_of(post(client, headers=page), 403, "HostError")
        own = {"Origin": str(client.base_url).rstrip("/")}
        assert post(client, headers=own).status_code == 200
    with running(classifier, allowed_origins=("https://page.example",)) as client:
        answer = post(client, headers=page)
        assert answer.headers["access-control-allow-origin"] == "https://page.example"
        asked = {**page, "Access-Control-Request-Method": "POST"}
        assert client.options("/v1/predict", headers=asked).status_code == 200
        error_of(post(client, headers={"Origin": "https://other.example"}), 403, "HostError")


def test_metrics_count_requests_audio_and_what_is_accepted(classifier):
    with running(classifier) as client:
        post(client)
        post(client, content=b"<html>")
        client.get("/nothing")
        families = text_string_to_metric_families(client.get("/metrics").text)
        values = {
            (item.name, *item.labels.values()): item.value
            for family in families
            for item in family.samples
        }
    assert values["emoser_requests_total", "/v1/predict", "200"] == 1
    assert values["emoser_requests_total", "/v1/predict", "422"] == 1
    assert values["emoser_requests_total", "other", "404"] == 1
    assert values["emoser_request_seconds_count", "/v1/predict"] == 2
    seconds = soundfile.info(CLIP).duration
    assert values["emoser_audio_seconds_total", "/v1/predict"] == pytest.approx(seconds, abs=0.01)
    assert values["emoser_accepted_requests",] == 0


def test_the_page_and_the_schema_name_no_other_host(client):
    schema = client.get("/openapi.json").json()
    assert set(schema["paths"]) == {
        "/v1/predict", "/v1/timeline", "/v1/turns", "/v1/embed", "/health", "/ready", "/metrics",
    }  # fmt: skip
    assert "servers" not in schema
    for path in ("/", "/page.js", "/page.css", "/openapi.json"):
        answer = client.get(path)
        assert re.findall(r"(?:https?:)?//[a-z0-9]+\.[a-z]+", answer.text) == []
        if path != "/openapi.json":
            assert answer.headers["content-security-policy"] == "default-src 'self'"


def test_nothing_about_a_recording_is_logged(client, capfd, caplog):
    post(client, params={"filename": "secret.wav"})
    post(client, content=b"secret", params={"filename": "secret.wav"})
    captured = capfd.readouterr()
    assert "secret" not in captured.out + captured.err + caplog.text


def test_a_bug_is_answered_without_its_details_and_logged(classifier, caplog):
    class Broken(Waiting):
        def predict(self, file, **options):
            raise KeyError("internal detail")

    with running(Broken(classifier)) as client:
        message = error_of(post(client), 500, "InternalError")
        assert "internal detail" not in message
        assert "internal detail" in caplog.text
        assert post(client, "/v1/embed").status_code == 200
