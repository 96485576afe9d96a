"""The engine under many threads: equal numbers in streams and batches; settings."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from support.models import loud_model, small_config

from emoser import EmotionClassifier
from emoser.checkpoints.resolve import find_checkpoint
from emoser.checkpoints.save import save_model
from emoser.errors import DeviceError
from emoser.runtimes import InferenceOutput
from emoser.runtimes.opening import open_runtime
from emoser.serve.model import BatchedRuntime, load_classifier
from emoser.serve.options import ServeOptions, count_cores

CLIPS = sorted((Path(__file__).parents[2] / "examples" / "audio").iterdir())
RATE = 16_000


@pytest.mark.parametrize("backend", ["torch", "openvino", "onnx"])
def test_streams_give_the_numbers_of_one_recording_alone(backend):
    pytest.importorskip({"onnx": "onnxruntime"}.get(backend, backend))
    options = ServeOptions(model="emoser-tiny", backend=backend, device="cpu", streams=2)
    shared = load_classifier(options)
    alone = EmotionClassifier.from_pretrained("emoser-tiny", backend=backend, device="cpu")
    with ThreadPoolExecutor(6) as threads:
        found = list(threads.map(shared.predict, CLIPS * 3))
    for one, clip in zip(found, CLIPS * 3, strict=True):
        assert one.scores == pytest.approx(dict(alone.predict(clip).scores), abs=1e-5)


def test_a_large_model_runs_each_recording_on_one_thread_with_several_streams(tmp_path):
    folder = str(save_model(loud_model(small_config()), tmp_path / "model"))
    files = find_checkpoint(folder)
    runtime = open_runtime(files, backend="torch", device="cpu", num_streams=2).runtime
    assert runtime.split
    runtime.small = False
    samples = np.random.default_rng(0).normal(0, 0.1, RATE).astype(np.float32)
    alone = open_runtime(files, backend="torch", device="cpu").runtime.infer([samples])
    np.testing.assert_allclose(runtime.infer([samples]).logits, alone.logits, atol=1e-5)


class Engine:
    """Doubles the mean of each recording; counts calls, and waits in the first one."""

    batch_seconds = 1.0
    group_size = 1

    def __init__(self):
        self.sizes, self.began, self.go = [], threading.Event(), threading.Event()

    def infer(self, recordings):
        self.sizes.append(len(recordings))
        self.began.set()
        assert self.go.wait(20)
        if any(len(item) > 1000 for item in recordings):
            raise DeviceError("too long for this device")
        means = np.array([[2 * item.mean()] for item in recordings], np.float32)
        return InferenceOutput(means, means)


def call(runtime, values, length=10):
    """A thread that runs recordings of constant values, and its result."""
    results = []

    def work():
        try:
            output = runtime.infer([np.full(length, value, np.float32) for value in values])
            results.append(output.logits[:, 0].tolist())
        except DeviceError as error:
            results.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    return thread, results


def test_calls_that_wait_form_one_batch_and_each_gets_its_own_outputs():
    engine = Engine()
    runtime = BatchedRuntime(engine, sampling_rate=100)
    calls = [call(runtime, [1.0])]
    assert engine.began.wait(20)
    calls += [call(runtime, values) for values in ([2.0], [3.0, 4.0], [5.0])]
    while len(runtime._waiting) < 3:
        threading.Event().wait(0.01)
    engine.go.set()
    for thread, _ in calls:
        thread.join(20)
    assert sorted(results[0] for _, results in calls) == [[2.0], [4.0], [6.0, 8.0], [10.0]]
    assert engine.sizes == [1, 4]


def test_a_batch_holds_no_more_than_the_engine_prefers():
    engine = Engine()
    runtime = BatchedRuntime(engine, sampling_rate=100)  # a hundred samples, padding included
    calls = [call(runtime, [1.0])]
    assert engine.began.wait(20)
    calls += [call(runtime, [2.0], length=40) for _ in range(3)]
    while len(runtime._waiting) < 3:
        threading.Event().wait(0.01)
    engine.go.set()
    for thread, _ in calls:
        thread.join(20)
    assert engine.sizes == [1, 2, 1]


def test_a_recording_that_fails_does_not_take_its_batch_with_it():
    engine = Engine()
    runtime = BatchedRuntime(engine, sampling_rate=100_000)
    calls = [call(runtime, [1.0])]
    assert engine.began.wait(20)
    calls += [call(runtime, [2.0]), call(runtime, [3.0], length=2000), call(runtime, [4.0])]
    while len(runtime._waiting) < 3:
        threading.Event().wait(0.01)
    engine.go.set()
    for thread, _ in calls:
        thread.join(20)
    results = [results[0] for _, results in calls]
    assert [results[0], results[1], results[3]] == [[2.0], [4.0], [8.0]]
    assert isinstance(results[2], DeviceError)


def test_settings_of_the_environment_are_those_of_the_command(tmp_path):
    options = ServeOptions(
        model="emoser-tiny",
        max_megabytes=2.5,
        max_requests=7,
        token_file=str(tmp_path),
        allowed_hosts=("a.example", "b.example"),
    )
    environment = options.to_environment()
    assert environment["EMOSER_SERVE_ALLOWED_HOSTS"] == "a.example,b.example"
    assert ServeOptions.from_environment({**environment, "PATH": "x"}) == options
    with pytest.raises(ValueError, match="EMOSER_SERVE_MAX_SECOND is not a setting"):
        ServeOptions.from_environment({"EMOSER_SERVE_MAX_SECOND": "1"})
    with pytest.raises(ValueError, match="it must be a number"):
        ServeOptions.from_environment({"EMOSER_SERVE_STREAMS": "many"})


@pytest.mark.parametrize("name", ["max_requests", "max_megabytes", "max_seconds", "streams"])
def test_settings_out_of_range_are_refused(name):
    with pytest.raises(ValueError, match=name):
        ServeOptions(**{name: -1})


def test_the_number_of_cores_follows_the_environment(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert count_cores() == 1
