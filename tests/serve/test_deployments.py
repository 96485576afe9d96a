"""The examples of `examples/serving`: the client, and the deployment on a local Ray cluster."""

import asyncio
import importlib.util
import os
import socket
from pathlib import Path

import numpy as np
import pytest
import soundfile
from support.servers import running

from emoser import EmotionClassifier, load_audio
from emoser.serve.server import _listen

pytest.importorskip("fastapi")

ROOT = Path(__file__).parents[2]
CLIP = ROOT / "examples" / "audio" / "loud.flac"


def load_example(name):
    spec = importlib.util.spec_from_file_location(
        name, ROOT / "examples" / "serving" / f"{name}.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def classifier():
    from emoser.serve.model import load_classifier
    from emoser.serve.options import ServeOptions

    return load_classifier(ServeOptions(model="emoser-tiny"))


def test_the_client_gets_answers_and_errors(classifier, tmp_path):
    tokens = tmp_path / "tokens"
    tokens.write_text("secret")
    example = load_example("client")
    bad = tmp_path / "bad.wav"
    bad.write_text("<html>")
    table, stereo = tmp_path / 'a "call".csv', tmp_path / "call.wav"
    table.write_text("start,end,speaker\n0,1,anna\n1,2,ben\n")
    speech = load_audio(CLIP)
    soundfile.write(stereo, np.stack([speech, speech], axis=1), 16_000)
    with running(classifier, token_file=str(tokens)) as server:
        client = example.Client(str(server.base_url), token="secret")
        assert client.predict(str(CLIP))["label"] == classifier.predict(CLIP).label
        assert client.timeline(str(CLIP), hop_seconds=0.5)["hop_seconds"] == 0.5
        assert len(client.embed(str(CLIP))["embedding"]) == classifier.embed([CLIP]).shape[1]
        calls = [
            client.turns(str(CLIP), str(table), adapt_speakers=True),
            client.turns(str(stereo)),
        ]
        with pytest.raises(example.ServiceError, match=r"bad\.wav cannot be decoded") as refused:
            client.predict(str(bad))
        assert (refused.value.kind, refused.value.status) == ("AudioError", 422)
        values = (load_audio(CLIP) * 32767).astype("<i2").tobytes()
        blocks = [values[start : start + 3200] for start in range(0, len(values), 3200)]
        messages = list(client.stream(blocks, sampling_rate=16_000, vad="none"))
    assert [turn["speaker"] for turn in calls[0]["turns"]] == ["anna", "ben"]
    assert calls[0]["speakers"][0]["adaptation"]["num_turns"] == 1
    assert {turn["channel"] for turn in calls[1]["turns"]} == {0, 1}
    assert messages[0]["type"] == "ready"
    assert messages[-1]["seconds"] == pytest.approx(len(values) / 32_000, abs=1e-3)


@pytest.mark.slow
def test_the_ray_deployment_answers_on_a_local_cluster(monkeypatch):
    ray = pytest.importorskip("ray")
    serve = pytest.importorskip("ray.serve")
    httpx = pytest.importorskip("httpx")
    monkeypatch.setenv("EMOSER_SERVE_MODEL", "emoser-tiny")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {"EMOSER_SERVE_MODEL": "emoser-tiny", "PYTHONPATH": str(ROOT)}
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        runtime_env={"env_vars": {**environment, "EMOSER_CACHE": os.environ["EMOSER_CACHE"]}},
    )
    try:
        serve.start(http_options={"host": "127.0.0.1", "port": port})
        serve.run(load_example("ray_deployment").service)
        answer = httpx.post(f"http://127.0.0.1:{port}/v1/predict", content=CLIP.read_bytes())
        expected = EmotionClassifier.from_pretrained("emoser-tiny").predict(CLIP)
        assert answer.json()["label"] == expected.label
        scores = list(answer.json()["scores"].values())
        np.testing.assert_allclose(scores, list(expected.scores.values()), atol=1e-5)
        assert httpx.get(f"http://127.0.0.1:{port}/ready").json()["model"] == "emoser-tiny"
    finally:
        serve.shutdown()
        ray.shutdown()


def test_answers_are_sent_at_once():
    """Otherwise the body of each waits until the client has acknowledged its headers."""

    async def connect():
        accepted = asyncio.get_running_loop().create_future()

        class Answering(asyncio.Protocol):
            def connection_made(self, transport):
                connection = transport.get_extra_info("socket")
                accepted.set_result(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
                transport.close()

        with _listen("127.0.0.1", 0) as listener:
            loop = asyncio.get_running_loop()
            server = await loop.create_server(Answering, sock=listener)
            await asyncio.open_connection(*listener.getsockname())
            set_on_accepted = await accepted
            server.close()
        return set_on_accepted

    assert asyncio.run(connect())
