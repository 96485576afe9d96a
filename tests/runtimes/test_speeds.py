"""The engine of "auto" is that which was measured to be the fastest on this machine."""

import json
import time

import numpy as np
import pytest

from emoser import EmotionClassifier
from emoser.checkpoints.resolve import find_checkpoint
from emoser.errors import DependencyError
from emoser.runtimes import InferenceOutput, onnx, opening, speeds
from emoser.runtimes.opening import open_runtime
from emoser.runtimes.speeds import SpeedRecord, measure_engines

TINY = "emoser-tiny"
ENGINES = ("openvino", "onnx")


class Sleeper:
    """A runtime that takes so many seconds for a call."""

    batch_seconds, group_size = None, 1

    def __init__(self, seconds):
        self.seconds = seconds

    def infer(self, recordings):
        time.sleep(self.seconds)
        return InferenceOutput(np.zeros((len(recordings), 4)), np.zeros((len(recordings), 8)))


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EMOSER_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def both_engines():
    for package in ("openvino", "onnxruntime"):
        pytest.importorskip(package)


def measured(monkeypatch, **seconds):
    """Measurements give these seconds; the engines that were measured, one list for each."""
    calls = []

    def measure(runtimes, **settings):
        calls.append(sorted(runtimes))
        return {name: seconds[name] for name in runtimes}

    monkeypatch.setattr(opening, "measure_engines", measure)
    return calls


def backend_of(name=TINY, **settings):
    return EmotionClassifier.from_pretrained(name, device="cpu", **settings).info.backend


@pytest.mark.parametrize("fastest", ENGINES)
def test_auto_follows_the_measurement(fastest, own_cache, both_engines, monkeypatch):
    seconds = {name: 1.0 if name == fastest else 2.0 for name in ENGINES}
    calls = measured(monkeypatch, **seconds)
    assert [backend_of() for _ in range(3)] == [fastest] * 3
    assert calls == [sorted(ENGINES)]


def test_it_is_measured_again_for_another_processor_version_precision_or_load(
    own_cache, both_engines, monkeypatch
):
    calls = measured(monkeypatch, openvino=1.0, onnx=2.0)
    backend_of()
    backend_of(dtype="float32")
    open_runtime(find_checkpoint(TINY), device="cpu", num_streams=2)
    assert len(calls) == 3
    monkeypatch.setattr(speeds, "identify_processor", lambda: "another")
    backend_of()
    assert len(calls) == 4
    monkeypatch.setattr(speeds, "_stamp", lambda package: 7)
    backend_of()
    assert len(calls) == 5
    backend_of("emoser-small")
    assert len(calls) == 6


@pytest.mark.parametrize("content", ["", "{}", '{"seconds": {"onnx": "quick"}}', "[]"])
def test_a_damaged_record_is_measured_again(content, own_cache, both_engines, monkeypatch):
    calls = measured(monkeypatch, openvino=2.0, onnx=1.0)
    backend_of()
    (record,) = (own_cache / "speeds").iterdir()
    record.write_text(content)
    assert backend_of() == "onnx"
    assert len(calls) == 2
    assert json.loads(record.read_text()) == {"seconds": {"openvino": 2.0, "onnx": 1.0}}


def test_nothing_is_measured_where_it_could_not_be_kept(tmp_path, both_engines, monkeypatch):
    (tmp_path / "cache").write_text("a file")
    monkeypatch.setenv("EMOSER_CACHE", str(tmp_path / "cache"))
    calls = measured(monkeypatch, openvino=2.0, onnx=1.0)
    assert backend_of() == "openvino"
    assert calls == []


@pytest.mark.parametrize("num_streams", [1, 2])
def test_the_fastest_engine_has_the_least_seconds(num_streams):
    runtimes = {"slow": Sleeper(0.02), "fast": Sleeper(0.0)}
    seconds = measure_engines(runtimes, sampling_rate=16_000, num_streams=num_streams)
    assert seconds["fast"] < 0.02 <= seconds["slow"]


def test_a_record_of_other_engines_does_not_count(own_cache):
    SpeedRecord({}, {"torch": "torch"}).keep({"torch": 1.0})
    assert SpeedRecord({}, {"torch": "torch"}).fastest == "torch"
    assert SpeedRecord({}, {"torch": "torch", "numpy": "numpy"}).fastest is None


def test_an_engine_that_does_not_load_is_replaced_by_torch(own_cache, monkeypatch):
    def fail(name, **words):
        raise DependencyError(f"{name} does not load here")

    monkeypatch.setattr(opening, "is_installed", lambda backend: backend != "openvino")
    monkeypatch.setattr(onnx, "import_package", fail)
    info = EmotionClassifier.from_pretrained(TINY, device="cpu").info
    assert info.backend == "torch"
    assert "onnxruntime does not load here" in info.notes[-1]
