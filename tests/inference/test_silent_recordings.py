"""A recording in which nobody speaks is silence, on every way in, and its scores stay."""

import csv
import io
import json

import numpy as np
import pytest
import soundfile as sf

from emoser import EmotionClassifier, EmotionStream, Prediction
from emoser.bulk import BulkJob, predict_folder
from emoser.cli import main
from emoser.demo.rendering import render_analysis
from emoser.export import export

RATE = 16_000
NOISE = (2e-3 * np.random.default_rng(0).standard_normal(4 * RATE)).astype(np.float32)
SILENT = {"zeros": np.zeros(4 * RATE, np.float32), "noise": NOISE, "short": NOISE[:300]}


@pytest.fixture(scope="module")
def classifier():
    return EmotionClassifier.from_pretrained("emoser-tiny", backend="torch", device="cpu")


@pytest.fixture(params=SILENT.values(), ids=SILENT)
def samples(request):
    return request.param


def file_of(samples):
    file = io.BytesIO()
    sf.write(file, samples, RATE, format="WAV", subtype="FLOAT")
    return file.getvalue()


def test_an_array_and_a_file_alone_and_in_a_batch_are_silence(classifier, samples):
    alone = classifier.predict(samples, sampling_rate=RATE)
    assert (alone.label, alone.score) == ("silence", None)
    assert "silence" in alone.quality
    assert sum(alone.scores.values()) == pytest.approx(1)
    assert classifier.predict_batch([file_of(samples)] * 2) == [alone] * 2
    assert list(classifier.iter_predictions([samples], sampling_rate=RATE)) == [alone]


def test_a_timeline_and_a_stream_are_silence_from_start_to_end(classifier, samples):
    timeline = classifier.timeline(samples, sampling_rate=RATE)
    assert [segment.kind for segment in timeline.segments] == ["silence"]
    with EmotionStream(classifier, sampling_rate=RATE) as stream:
        segments = [*stream.push(samples), *stream.flush()]
    assert tuple(segments) == timeline.segments
    assert not stream.latest.scores


def test_the_stretches_of_a_recording_follow_the_same_rule(classifier):
    voice = 0.1 * np.random.default_rng(1).standard_normal(4 * RATE).astype(np.float32)
    timeline = classifier.timeline(np.concatenate([NOISE, voice, NOISE]), sampling_rate=RATE)
    kinds = [segment.kind == "silence" for segment in timeline.segments]
    assert (kinds[0], kinds[-1], any(kinds[1:-1])) == (True, True, False)


@pytest.mark.parametrize("labels", [None, "valence3"])
def test_the_label_is_silence_whatever_the_labels_are_mapped_to(labels):
    classifier = EmotionClassifier.from_pretrained("emoser-tiny", backend="torch", labels=labels)
    assert classifier.predict(NOISE, sampling_rate=RATE).label == "silence"
    assert "silence" not in classifier.labels


def test_an_exported_engine_gives_the_same_answer(classifier, tmp_path):
    pytest.importorskip("onnxruntime")
    export("emoser-tiny", tmp_path / "onnx", to="onnx")
    exported = EmotionClassifier.from_pretrained(tmp_path / "onnx")
    answer = exported.predict(NOISE, sampling_rate=RATE)
    assert answer.label == "silence"
    assert answer.scores == pytest.approx(
        classifier.predict(NOISE, sampling_rate=RATE).scores, abs=1e-4
    )


def test_the_rows_of_the_command_and_of_a_folder_say_so(tmp_path, capsys):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "quiet.wav").write_bytes(file_of(NOISE))
    command = ["predict", "--model", "emoser-tiny", "--backend", "torch", str(tmp_path / "in")]
    assert main([*command, "--csv"]) == 0
    (row,) = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert (row["label"], row["score"], row["quality"]) == ("silence", "", "silence")
    assert main([*command, "--json"]) == 0
    row = json.loads(capsys.readouterr().out)
    assert (row["label"], row["score"], len(row["scores"])) == ("silence", None, 4)
    assert main(command) == 0
    assert capsys.readouterr().out.split()[1:4] == ["silence", "4.0", "s"]
    output = tmp_path / "rows.csv"
    predict_folder(BulkJob(str(tmp_path / "in"), str(output), "emoser-tiny", backend="torch"))
    assert next(csv.DictReader(output.open()))["label"] == "silence"


def test_the_demo_headlines_silence(classifier, tmp_path):
    prediction = classifier.predict(NOISE, sampling_rate=RATE)
    timeline = classifier.timeline(NOISE, sampling_rate=RATE)
    page = render_analysis(prediction, timeline, tmp_path / "quiet.wav")
    assert '<p class="emoser-label" role="status">No speech</p>' in page


def test_the_text_and_the_row_of_a_silent_prediction():
    answer = Prediction.from_scores(
        {"sad": 0.75, "happy": 0.25}, duration=2.0, quality=("silence", "short")
    )
    assert str(answer) == "silence, 2.0 s, short"
    row = answer.to_dict(flat=True)
    assert (row["label"], row["score"], row["score_sad"]) == ("silence", None, 0.75)
