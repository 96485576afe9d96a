"""A model of another rate than 16 kHz gets it from every source, on every engine."""

import json

import numpy as np
import pytest
import soundfile
import soxr
from support.fakes import voice_and_pauses
from support.models import LABELS, loud_model, small_config
from transformers import Wav2Vec2Config, pipeline

from emoser import EmotionClassifier, EmotionStream
from emoser.audio import SAMPLING_RATE, load_audio
from emoser.checkpoints.save import save_model
from emoser.export import export

MODEL_RATE = 8_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    model = loud_model(small_config(Wav2Vec2Config), sampling_rate=MODEL_RATE, max_seconds=4.0)
    return save_model(model, tmp_path_factory.mktemp("rate") / "model")


@pytest.fixture(scope="module")
def classifier(folder):
    return EmotionClassifier.from_pretrained(folder, device="cpu", backend="torch")


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    """Eleven seconds with pauses, at a rate of its own."""
    samples = voice_and_pauses([(3, 0.2), (2, 0.0), (4, 0.1), (2, 0.0)])
    file = tmp_path_factory.mktemp("rate") / "call.wav"
    soundfile.write(file, soxr.resample(samples, SAMPLING_RATE, 44_100), 44_100, subtype="FLOAT")
    return file


def test_audio_is_resampled_once_to_the_rate_of_the_model(recording):
    own, rate = soundfile.read(recording, dtype="float32")
    expected = soxr.resample(own, rate, MODEL_RATE, quality="HQ")
    np.testing.assert_array_equal(load_audio(recording, target_rate=MODEL_RATE), expected)


def test_windows_are_cut_in_seconds(classifier, folder, recording):
    samples = load_audio(recording, target_rate=MODEL_RATE)
    pipe = pipeline("audio-classification", str(folder))
    size = round(4.0 * MODEL_RATE)
    starts = [0, size, len(samples) - size]  # the last window ends with the recording
    rows = [{item["label"]: item["score"] for item in pipe(samples[s : s + size])} for s in starts]
    answer = classifier.predict(recording)
    assert answer.num_windows == 3
    assert answer.duration == pytest.approx(11.0, abs=1e-3)
    overlap = (starts[1] + size - starts[2]) / len(samples) / 2
    weights = [size / len(samples), size / len(samples) - overlap, size / len(samples) - overlap]
    for label in LABELS:
        expected = sum(w * row[label] for w, row in zip(weights, rows, strict=True))
        assert answer.scores[label] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("vad", ["energy", None])
def test_timelines_have_their_times_and_streams_give_the_same(vad, classifier, recording):
    whole = classifier.timeline(recording, vad=vad)
    assert whole.duration == pytest.approx(11.0, abs=1e-3)
    assert [round(window.start, 3) for window in whole.windows[:3]] == [0.0, 1.0, 2.0]
    assert len(whole.peaks[0]) == pytest.approx(11.0 / 0.032, abs=2)
    if vad:
        silent = [(item.start, item.end) for item in whole.segments if item.kind == "silence"]
        assert silent == [pytest.approx((3.1, 5.0), abs=0.2), pytest.approx((9.1, 11.0), abs=0.2)]
    samples, rate = soundfile.read(recording, dtype="float32")
    stream = EmotionStream(classifier, sampling_rate=rate, vad=vad)
    parts = list(stream.iterate(samples[at : at + 5_000] for at in range(0, len(samples), 5_000)))
    assert [(item.start, item.end, item.name) for item in parts] == [
        (item.start, item.end, item.name) for item in whole.segments
    ]


@pytest.mark.parametrize(
    ("to", "package"),
    [("onnx", "onnxruntime"), pytest.param("openvino", "openvino", marks=pytest.mark.slow)],
)
def test_an_exported_graph_keeps_the_rate(to, package, folder, classifier, recording, tmp_path):
    pytest.importorskip(package)
    export(folder, tmp_path / "graph", to=to, calibrate=recording.parent)
    manifest = json.loads((tmp_path / "graph" / "emoser_runtime.json").read_text())
    assert manifest["config"]["sampling_rate"] == MODEL_RATE
    graph = EmotionClassifier.from_pretrained(tmp_path / "graph", backend=to)
    assert graph.info.sampling_rate == MODEL_RATE
    expected = classifier.predict(recording).scores
    assert graph.predict(recording).scores == pytest.approx(expected, abs=1e-4)


def test_flags_belong_to_the_recording_and_not_to_the_model(classifier, recording):
    usual = EmotionClassifier.from_pretrained("emoser-tiny")
    files = [recording, "examples/audio/telephone.wav", "examples/audio/plain.wav"]
    for file in files:
        assert classifier.predict(file).quality == usual.predict(file).quality
    assert classifier.embed(files).shape[0] == 3
