"""Live audio over the WebSocket: segments of the library, containers, limits, and the end."""

import io
import json
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
import soundfile
from support.servers import running

from emoser import EmotionClassifier, EmotionStream
from emoser.audio.live import PcmFormat, open_live
from emoser.errors import AudioError

pytest.importorskip("fastapi")
av = pytest.importorskip("av")
sync = pytest.importorskip("websockets.sync.client")
from websockets.exceptions import ConnectionClosedError  # noqa: E402

from emoser.serve.model import load_classifier  # noqa: E402
from emoser.serve.options import ServeOptions  # noqa: E402

CLIPS = Path(__file__).parents[2] / "examples" / "audio"
RATE = 16_000
CONTAINERS = {"webm": ("libopus", 48_000), "ogg": ("libopus", 48_000), "mp4": ("aac", 44_100)}


@pytest.fixture(scope="module")
def classifier():
    return load_classifier(ServeOptions(model="emoser-tiny"))


@pytest.fixture(scope="module")
def voice():
    """Twelve seconds of different clips, 16 kHz."""
    names = ("loud.flac", "plain.wav", "bright.mp3", "slow.ogg")
    from emoser import load_audio

    return np.concatenate([load_audio(CLIPS / name) for name in names])


@pytest.fixture(scope="module")
def server(classifier):
    with running(classifier) as client:
        yield client


@contextmanager
def connect(client, query="", **settings):
    address = str(client.base_url).replace("http", "ws", 1).rstrip("/")
    with sync.connect(f"{address}/v1/stream{query}", compression=None, **settings) as socket:
        yield socket


def stream(client, query, chunks, end=True):
    """All messages of a session, and the code that closed it."""
    with connect(client, query) as socket:
        messages = []
        reader = threading.Thread(target=lambda: messages.extend(rest(socket)))
        reader.start()
        for chunk in chunks:
            socket.send(chunk)
        if end:
            socket.send("end")
        reader.join(60)
        return messages, socket.close_code


def rest(socket):
    """All further messages, until the server closes."""
    messages = []
    with suppress(ConnectionClosedError):
        for message in socket:
            messages.append(json.loads(message))
    return messages


def of_type(messages, kind):
    return [
        {key: value for key, value in message.items() if key != "type"}
        for message in messages
        if message["type"] == kind
    ]


def pieces(data, size):
    return [data[start : start + size] for start in range(0, len(data), size)]


def write_container(samples, kind):
    """Samples at 16 kHz in a container as a recorder writes it: without seeking, in clusters."""
    codec, rate = CONTAINERS[kind]
    settings = {"webm": {"live": "1", "cluster_time_limit": "100"}}
    settings["mp4"] = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}
    settings["mp4"]["frag_duration"] = "100000"
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=kind, options=settings.get(kind, {})) as media:
        track = media.add_stream(codec, rate=rate)
        track.layout = "mono"
        frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
        frame.sample_rate = RATE
        for part in av.AudioResampler("fltp", "mono", rate, frame_size=960).resample(frame):
            media.mux(track.encode(part))
        media.mux(track.encode(None))
    return buffer.getvalue()


@pytest.mark.parametrize("size", [1001, 64_000], ids=["odd chunks", "large chunks"])
def test_windows_and_segments_of_raw_samples_are_those_of_the_library(server, voice, size):
    values = np.round(voice * 32767).clip(-32768, 32767).astype("<i2")
    query = f"?format=s16le&sampling_rate={RATE}&hop_seconds=0.5"
    messages, code = stream(server, query, pieces(values.tobytes(), size))
    expected = EmotionClassifier.from_pretrained("emoser-tiny").timeline(
        values, sampling_rate=RATE, hop_seconds=0.5
    )
    assert messages[0]["type"] == "ready"
    assert messages[0]["labels"] == list(expected.labels)
    found = of_type(messages, "segment")
    for one, other in zip(found, expected.segments, strict=True):
        assert (one["start"], one["end"], one["label"]) == (
            other.to_dict()["start"], other.to_dict()["end"], other.label,
        )  # fmt: skip
    windows = of_type(messages, "window")
    for one, other in zip(windows, expected.windows, strict=True):
        assert one["scores"] == pytest.approx(dict(other.scores), abs=1e-5)
    seconds = round(len(values) / RATE, 3)
    assert messages[-1] == {"type": "done", "seconds": seconds, "reason": "end"}
    assert code == 1000


@pytest.mark.parametrize("kind", CONTAINERS)
def test_a_container_in_chunks_has_the_segments_of_its_decoded_samples(server, voice, kind):
    data = write_container(voice, kind)
    decoded = [frame.to_ndarray()[0] for frame in av.open(io.BytesIO(data)).decode(audio=0)]
    rate = CONTAINERS[kind][1]
    own = EmotionStream(EmotionClassifier.from_pretrained("emoser-tiny"), sampling_rate=rate)
    expected = list(own.iterate(decoded))
    messages, code = stream(server, "", pieces(data, 700))
    found = of_type(messages, "segment")
    assert [(item["start"], item["end"], item["label"]) for item in found] == [
        (round(item.start, 3), round(item.end, 3), item.label) for item in expected
    ]
    assert of_type(messages, "done")[0]["reason"] == "end"
    assert code == 1000


def test_windows_arrive_while_the_sound_still_does(server, voice):
    data = pieces(write_container(voice, "webm"), 2000)
    with connect(server, "?hop_seconds=0.5") as socket:
        assert json.loads(socket.recv(10))["type"] == "ready"
        for chunk in data[: len(data) // 2]:
            socket.send(chunk)
        first = json.loads(socket.recv(30))
        assert first["type"] == "window"
        socket.send("end")
        assert json.loads(list(socket)[-1])["seconds"] == pytest.approx(
            len(voice) / RATE / 2, abs=1
        )


@pytest.mark.parametrize(
    ("query", "chunk", "words"),
    [
        ("", b"this is no container at all", "begins with the bytes"),
        ("", b"\x1a\x45\xdf\xa3" + bytes(5000), "cannot be decoded"),
        ("?format=mp9", b"", "format is 'mp9'"),
        ("?format=s16le", b"", "needs sampling_rate"),
        ("?format=s16le&sampling_rate=3", b"", "sampling rate of 3 Hz"),
        ("?format=s16le&sampling_rate=inf", b"", "sampling_rate is 'inf'"),
        ("?format=f32le&sampling_rate=16000", np.float32([np.nan] * 9000).tobytes(), "NaN"),
        ("?hop_seconds=99", b"", "hop_seconds is 99"),
        ("?hop_second=1", b"", "hop_second is not a parameter"),
        ("?vad=magic", b"", "vad is 'magic'"),
        ("", "what?", "text message"),
    ],
)  # fmt: skip
def test_a_wrong_session_ends_with_a_sentence(server, query, chunk, words):
    messages, code = stream(server, query, [chunk] if chunk else [], end=False)
    assert messages[-1]["type"] == "error"
    assert words in messages[-1]["error"]["message"]
    assert code == 1007
    assert stream(server, f"?format=s16le&sampling_rate={RATE}", [bytes(RATE * 2)])[1] == 1000


def test_limits_of_sessions_seconds_and_silence(classifier):
    query = f"?format=s16le&sampling_rate={RATE}"
    with running(classifier, max_sessions=1, max_seconds=2, timeout_seconds=1) as client:
        messages, code = stream(client, query, [bytes(RATE * 2)] * 4, end=False)
        assert "longer than 2 s" in messages[-1]["error"]["message"]
        assert code == 1007
        with connect(client, query) as socket:
            socket.recv(10)
            messages, code = stream(client, query, [], end=False)
            assert "1 live sessions" in messages[0]["error"]["message"]
            assert code == 1013
            assert "nothing arrived for 1 s" in rest(socket)[-1]["error"]["message"]
            assert socket.close_code == 1008
        until_closed(client)
        assert stream(client, query, [bytes(RATE)])[1] == 1000


def until_closed(client):
    deadline = time.monotonic() + 20
    while client.app.state.service.num_sessions:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_page_sends_its_token_as_a_protocol(classifier, tmp_path):
    tokens = tmp_path / "tokens"
    tokens.write_text("secret")
    with running(classifier, token_file=str(tokens)) as client:
        for protocols in (None, ["emoser"], ["emoser", "bearer.wrong"]):
            with pytest.raises(Exception, match="401"), connect(client, subprotocols=protocols):
                pass
        with connect(client, subprotocols=["emoser", "bearer.secret"]) as socket:
            assert socket.subprotocol == "emoser"
            assert json.loads(socket.recv(10))["type"] == "ready"
        headers = {"Authorization": "Bearer secret"}
        with connect(client, additional_headers=headers) as socket:
            assert json.loads(socket.recv(10))["type"] == "ready"
        with pytest.raises(Exception, match="403"), connect(client, origin="https://x.example"):
            pass


def test_a_stop_ends_sessions_with_what_was_found(classifier, voice):
    values = (voice * 32767).astype("<i2").tobytes()
    with (
        running(classifier) as client,
        connect(client, f"?format=s16le&sampling_rate={RATE}") as socket,
    ):
        socket.send(values[: 2**18])
        assert json.loads(socket.recv(10))["type"] == "ready"
        assert json.loads(socket.recv(30))["type"] == "window"
        service = client.app.state.service
        client.portal.call_soon_threadsafe(service.stop)
        messages = [json.loads(message) for message in socket]
        assert messages[-1]["reason"] == "stopping"
        assert messages[-1]["seconds"] == pytest.approx(2**17 / RATE, abs=1e-3)
        assert messages[-2]["end"] == messages[-1]["seconds"]
        assert socket.close_code == 1001
        assert client.get("/ready").status_code == 503


def test_a_client_that_leaves_frees_its_place(classifier):
    with running(classifier, max_sessions=1) as client:
        for _ in range(3):
            with connect(client, "?format=s16le&sampling_rate=16000") as socket:
                socket.recv(10)
                socket.send(bytes(1000))
            until_closed(client)


def test_live_pcm_is_decoded_as_soundfile_does(tmp_path, voice):
    stereo = np.stack([voice, voice[::-1]], axis=1)
    path = tmp_path / "a.wav"
    soundfile.write(path, stereo, RATE, "PCM_16")
    expected, _ = soundfile.read(path, dtype="float32")
    data = path.read_bytes()[44:]
    with open_live(io.BytesIO(data + b"\1"), PcmFormat("s16le", RATE, 2)) as sound:
        blocks = list(sound.blocks)
    np.testing.assert_array_equal(np.concatenate(blocks), expected)
    assert max(map(len, blocks)) <= RATE // 10 + 1
    with pytest.raises(AudioError, match="is empty"), open_live(io.BytesIO()):
        pass
