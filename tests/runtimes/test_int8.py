"""int8 is calibrated on the user's recordings, and refused where it changes their labels."""

import csv
import json
import os

import numpy as np
import pytest
import soundfile
from support.models import random_clips

from emoser import EmotionClassifier
from emoser.checkpoints.files import as_files
from emoser.cli import main
from emoser.errors import AudioError, CheckpointError
from emoser.export import export
from emoser.runtimes import InferenceOutput
from emoser.runtimes.conversion.quantization import find_kept, measure_agreement, split_clips
from emoser.runtimes.manifest import read_manifest

pytest.importorskip("openvino")
pytest.importorskip("nncf")


class Told:
    """An engine that gives fixed logits, one row after another."""

    batch_seconds = None
    group_size = 1

    def __init__(self, rows):
        self.rows = iter(rows)

    def infer(self, recordings):
        rows = np.array([next(self.rows) for _ in recordings], np.float32)
        return InferenceOutput(rows, rows)


def rows_of(labels):
    return [np.eye(2)[label] for label in labels]


def test_agreement_is_the_share_of_the_same_labels():
    reference = rows_of([0] * 50 + [1] * 50)
    told = rows_of([0] * 50 + [1] * 49 + [0])
    clips = random_clips((10,) * 100)
    parity = measure_agreement(Told(told), Told(reference), clips, 2)
    assert parity["agreement"] == 0.99
    assert parity["mean_recall"] == pytest.approx(0.99)
    assert (parity["max_difference"], parity["num_clips"]) == (1.0, 100)
    assert parity["mean_difference"] == pytest.approx(0.01)


def test_of_several_labels_every_yes_and_no_counts():
    generator = np.random.default_rng(0)
    expected = generator.standard_normal((50, 3)).astype(np.float32)
    told = expected.copy()
    told[7, 1] *= -1.0
    told[:, 2] = expected[:, 2] = generator.standard_normal(50)  # a dimension
    clips = random_clips((10,) * 50)
    parity = measure_agreement(Told(told), Told(expected), clips, 2, multi_label=True)
    assert parity["agreement"] == 0.99
    group = (np.sign(expected[:, 1]) == np.sign(expected[7, 1])).sum()
    assert parity["mean_recall"] == pytest.approx((3 + (group - 1) / group) / 4)


def test_under_98_percent_is_refused_with_the_figure():
    reference, told = rows_of([0] * 100), rows_of([0] * 97 + [1] * 3)
    with pytest.raises(CheckpointError, match=r"97\.0% of those of 100 recordings are the same"):
        measure_agreement(Told(told), Told(reference), random_clips((10,) * 100), 2)


def test_a_model_without_labels_is_refused():
    with pytest.raises(ValueError, match="dimensions only"):
        measure_agreement(Told([]), Told([]), [], 0)


def test_only_what_reads_raw_samples_and_grouped_convolutions_keep_their_precision():
    from openvino import Model
    from openvino import opset13 as op

    weights = op.constant(np.ones((4, 4), np.float32))
    samples = op.parameter([1, 4], np.float32)
    first = op.matmul(op.relu(samples), weights, False, False, name="first")
    second = op.matmul(op.relu(first), weights, False, False, name="second")
    kernel = op.constant(np.ones((2, 1, 1, 1), np.float32))
    rows = op.reshape(second, op.constant(np.array([1, 2, 2])), special_zero=False)
    grouped = op.group_convolution(rows, kernel, [1], [0], [0], [1], name="grouped")
    kept = find_kept(Model([grouped], [samples]).get_ordered_ops())
    assert kept == ["first", "grouped"]


def test_narrow_first_convolutions_keep_their_precision():
    from openvino import Model
    from openvino import opset13 as op

    samples = op.parameter([-1, 4], np.float32)
    last, names = samples, []
    for width, before in ((300, 4), (128, 300), (256, 128), (300, 256)):
        names.append(f"feature_extractor/{width}-{before}")
        weights = op.constant(np.ones((before, width), np.float32))
        last = op.matmul(op.relu(last), weights, False, False, name=names[-1])
    narrow = op.constant(np.ones((300, 8), np.float32))
    layer = op.matmul(last, narrow, False, False, name="encoder/layer")
    kept = find_kept(Model([layer], [samples]).get_ordered_ops())
    assert kept == names[:2]  # the one that reads samples, and the one of 128 channels


def test_half_of_the_recordings_are_held_out():
    clips = random_clips((10,) * 100)
    calibration, held_out = split_clips(clips)
    assert (len(calibration), len(held_out)) == (50, 50)
    assert not {id(clip) for clip in calibration} & {id(clip) for clip in held_out}
    with pytest.raises(AudioError, match="99 are too few"):
        split_clips(clips[:99])


def test_int8_without_recordings_is_refused(tmp_path):
    with pytest.raises(ValueError, match="int8 needs recordings to calibrate on"):
        export("emoser-tiny", tmp_path / "model", int8=True)


@pytest.fixture(scope="module")
def real_clips(speech_data, tmp_path_factory):
    """Recordings of RAVDESS and nEMO with the emotions of emoser-tiny, 240 of them."""
    folder = tmp_path_factory.mktemp("clips")
    wanted = {"neutral", "angry", "happy", "sad", "anger", "happiness", "sadness"}
    with (speech_data / "manifest.csv").open() as opened:
        rows = [row for row in csv.DictReader(opened) if row["corpus"] in ("ravdess", "nemo")]
    rows = [row for row in rows if row["emotion"] in wanted]
    for place in np.random.default_rng(0).permutation(len(rows))[:240]:
        file = speech_data / rows[place]["path"]
        os.symlink(file.resolve(), folder / f"{place:05}{file.suffix}")
    return folder


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.parametrize("to", ["openvino", "onnx"])
def test_the_bundled_checkpoint_keeps_its_labels_in_int8(
    to, real_clips, tmp_path, capsys, monkeypatch
):
    if to == "onnx":
        pytest.importorskip("onnx")
    monkeypatch.setenv("EMOSER_CACHE", str(tmp_path / "cache"))
    words = ["export", "emoser-tiny", tmp_path / "int8", "--to", to, "--int8"]
    assert main([*map(str, words), "--calibrate", str(real_clips), "--json"]) == 0
    assert not (tmp_path / "cache" / "compiled").exists()  # of the graphs that were compared
    row = json.loads(capsys.readouterr().out.splitlines()[-1])
    print(row)
    assert (row["format"], row["dtype"]) == (to, "int8")
    assert row["parity"]["agreement"] >= 0.98
    assert row["parity"]["num_clips"] == row["parity"]["num_calibrated"] == 120
    assert 0 < row["parity"]["mean_difference"] < row["parity"]["max_difference"]
    assert read_manifest(as_files(tmp_path / "int8")).dtype == "int8"
    classifier = EmotionClassifier.from_pretrained(tmp_path / "int8", device="cpu", backend=to)
    assert (classifier.info.backend, classifier.info.dtype) == (to, "int8")
    file = sorted(real_clips.iterdir())[0]
    samples, rate = soundfile.read(file, dtype="float32", always_2d=True)
    assert classifier.predict(samples, sampling_rate=rate).label in classifier.labels


@pytest.mark.data
@pytest.mark.slow
def test_a_refused_int8_export_leaves_no_folder(real_clips, tmp_path, monkeypatch):
    from emoser.runtimes.conversion import quantization

    monkeypatch.setattr(quantization, "MIN_AGREEMENT", 1.01)
    with pytest.raises(CheckpointError, match="changes too many labels"):
        export("emoser-tiny", tmp_path / "int8", to="openvino", int8=True, calibrate=real_clips)
    assert not (tmp_path / "int8").exists()
