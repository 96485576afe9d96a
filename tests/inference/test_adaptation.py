"""A classifier adapted to a speaker: the formula on embeddings, engines, storage, refusals."""

import json
import pickle

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from scipy.special import softmax
from support.fakes import formula_classifier
from support.models import LABELS, loud_model, random_clips, small_config
from transformers import pipeline

from emoser import EmotionClassifier, EmotionStream
from emoser.checkpoints import conversion
from emoser.checkpoints.save import save_model
from emoser.errors import CheckpointError
from emoser.inference.adaptation import MIN_RECORDINGS, SHRINKAGE
from emoser.models.config import ModelConfig

RATE = 16_000
PACKAGES = {"torch": "torch", "onnx": "onnxruntime", "openvino": "openvino"}
TRAINING = random_clips([9_000, 12_000, 7_000, 16_000], seed=1)
SPEAKER = [0.2 * clip + 0.01 for clip in random_clips([8_000 + 500 * n for n in range(10)], seed=2)]
NEW = random_clips([11_000, 20_000], seed=3)


def load(folder, backend="torch", **options):
    pytest.importorskip(PACKAGES[backend])
    return EmotionClassifier.from_pretrained(folder, device="cpu", backend=backend, **options)


def scores_of(classifier, clips=NEW):
    answers = classifier.predict_batch(clips, sampling_rate=RATE)
    return np.array([list(answer.scores.values()) for answer in answers])


def state_means(folder, means):
    file = folder / "config.json"
    config = json.loads(file.read_text())
    config["emoser"]["mean_logits"] = list(map(float, means))
    file.write_text(json.dumps(config))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A checkpoint of transformers' layout, with the mean logits of `TRAINING`."""
    folder = save_model(loud_model(small_config()), tmp_path_factory.mktemp("adapted") / "model")
    head = load_file(folder / "model.safetensors")
    mean = load(folder).embed(TRAINING, sampling_rate=RATE).mean(axis=0)
    state_means(folder, head["classifier.weight"] @ mean + head["classifier.bias"])
    return folder


@pytest.fixture(scope="module")
def adapted(folder):
    return load(folder).adapt(SPEAKER, sampling_rate=RATE)


def test_the_shrunk_difference_of_mean_embeddings_is_subtracted_before_the_head(folder, adapted):
    head, plain = load_file(folder / "model.safetensors"), load(folder)
    training, speaker, new = (
        plain.embed(clips, sampling_rate=RATE).astype(np.float64)
        for clips in (TRAINING, SPEAKER, NEW)
    )
    share = len(SPEAKER) / (len(SPEAKER) + SHRINKAGE)
    moved = new - share * (speaker.mean(axis=0) - training.mean(axis=0))
    expected = softmax(moved @ head["classifier.weight"].T + head["classifier.bias"], axis=1)
    assert scores_of(adapted) == pytest.approx(expected, abs=1e-5)
    assert np.abs(scores_of(adapted) - scores_of(plain)).max() > 0.02
    assert adapted.num_recordings == len(SPEAKER)
    assert (plain.num_recordings, adapted.labels) == (0, plain.labels)
    assert np.array_equal(adapted.embed(NEW, sampling_rate=RATE), np.float32(new))


@pytest.mark.parametrize(
    "backend", ["torch", "onnx", pytest.param("openvino", marks=pytest.mark.slow)]
)
def test_all_engines_adapt_to_the_same_scores(backend, folder, adapted):
    other = load(folder, backend, dtype="float32").adapt(SPEAKER, sampling_rate=RATE)
    assert scores_of(other) == pytest.approx(scores_of(adapted), abs=2e-4)


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_a_temperature_divides_the_mean_logits_too(temperature, tmp_path):
    """The saved checkpoint has it in the weights; the model in memory, beside them."""
    model = loud_model(small_config(), mean_logits=(1.0, -0.5, 0.25, 0.0), temperature=temperature)
    again = load(save_model(model, tmp_path / "model")).adapt(SPEAKER, sampling_rate=RATE)
    with torch.inference_mode():
        speaker, new = (
            np.concatenate([model(torch.from_numpy(clip)[None]).logits for clip in clips])
            for clips in (SPEAKER, NEW)
        )
    share = len(SPEAKER) / (len(SPEAKER) + SHRINKAGE)
    moved = new - share * (speaker.mean(axis=0) - model.config.mean_logits)
    assert scores_of(again) == pytest.approx(softmax(moved / temperature, axis=1), abs=1e-5)


def test_it_is_saved_and_pickled_and_transformers_loads_it(adapted, tmp_path):
    adapted.save_pretrained(tmp_path / "anna")
    saved, pickled = load(tmp_path / "anna"), pickle.loads(pickle.dumps(adapted))
    for other in (saved, pickled):
        assert scores_of(other) == pytest.approx(scores_of(adapted), abs=1e-5)
        assert other.num_recordings == len(SPEAKER)
    saved.save_pretrained(tmp_path / "again")
    for name in ("anna", "again"):
        card = (tmp_path / name / "README.md").read_text(encoding="utf-8")
        assert card.count("> Adapted to one speaker by 10 recordings, and for no other.") == 1
    pipe = pipeline("audio-classification", str(tmp_path / "anna"), dtype=torch.float32)
    theirs = {item["label"]: item["score"] for item in pipe(NEW[0], top_k=None)}
    expected = adapted.predict(NEW[0], sampling_rate=RATE).scores
    assert theirs == pytest.approx(expected, abs=1e-4)


def test_what_is_published_is_the_adapted_model(adapted, monkeypatch):
    pushed = []

    def push(folder, *_arguments, **_options):
        pushed.append(scores_of(load(folder)))
        return "address"

    monkeypatch.setattr(conversion, "push_folder", push)
    adapted.push_to_hub("someone/anna")
    assert pushed[0] == pytest.approx(scores_of(adapted), abs=1e-5)


def test_timelines_and_streams_use_it(adapted, tmp_path):
    """The saved one has it in its biases, the other one subtracts it."""
    adapted.save_pretrained(tmp_path / "anna")
    saved = load(tmp_path / "anna")
    (clip,) = random_clips([6 * RATE], seed=4)
    ours = adapted.timeline(clip, sampling_rate=RATE)
    theirs = saved.timeline(clip, sampling_rate=RATE)
    for window, other in zip(ours.windows, theirs.windows, strict=True):
        assert window.scores == pytest.approx(other.scores, abs=1e-5)
    stream = EmotionStream(adapted, sampling_rate=RATE)
    assert tuple(stream.iterate(np.split(clip, 6))) == ours.segments
    assert stream.latest == ours.windows[-1]


def test_turns_of_a_conversation_use_it(adapted):
    (clip,) = random_clips([2 * RATE], seed=5)
    turns = [(0.0, 0.75, "anna"), (0.75, 2.0, "anna")]
    call = adapted.predict_turns(clip, turns, sampling_rate=RATE)
    parts = [clip[: 3 * RATE // 4], clip[3 * RATE // 4 :]]
    expected = scores_of(adapted, parts)
    found = np.array([list(turn.prediction.scores.values()) for turn in call])
    assert found == pytest.approx(expected, abs=1e-6)


def test_an_exported_graph_is_adapted_without_its_weights(folder, adapted, tmp_path):
    pytest.importorskip("onnxruntime")
    from emoser.export import export

    export(str(folder), tmp_path / "graph")
    graph = load(tmp_path / "graph", "onnx").adapt(SPEAKER, sampling_rate=RATE)
    assert scores_of(graph) == pytest.approx(scores_of(adapted), abs=2e-4)


@pytest.mark.parametrize("name", ["emoser-small", "emoser-tiny"])
def test_the_bundled_checkpoints_can_be_adapted(name):
    classifier = load(name, "onnx")
    adapted = classifier.adapt(SPEAKER[:MIN_RECORDINGS], sampling_rate=RATE)
    assert adapted.num_recordings == MIN_RECORDINGS
    assert np.abs(scores_of(adapted, NEW[:1]) - scores_of(classifier, NEW[:1])).max() > 0


def test_too_few_recordings_are_refused_and_silent_ones_do_not_count(folder):
    quiet = [np.zeros(RATE, np.float32)] * 20
    clips = [*SPEAKER[: MIN_RECORDINGS - 1], *quiet]
    message = "7 recordings with speech cannot adapt to a speaker; give at least 8, of all emotions"
    with pytest.raises(ValueError, match=message):
        load(folder).adapt(clips, sampling_rate=RATE)


def test_an_adapted_classifier_is_not_adapted_again(adapted, tmp_path):
    adapted.save_pretrained(tmp_path / "anna")
    for classifier in (adapted, load(tmp_path / "anna")):
        with pytest.raises(CheckpointError, match="adapted to 10 recordings of a speaker already"):
            classifier.adapt(SPEAKER, sampling_rate=RATE)


def test_a_head_that_is_not_linear_is_refused(tmp_path):
    model = loud_model(small_config(), head="dense", activation="tanh", projection_size=8)
    folder = save_model(model, tmp_path / "dense")
    with pytest.raises(CheckpointError, match="linear head on pooled frames"):
        load(folder).adapt(SPEAKER, sampling_rate=RATE)


def test_a_checkpoint_without_mean_logits_is_refused_with_the_way_to_get_them():
    with pytest.raises(CheckpointError, match=r"formula does not state mean_logits.*finetune"):
        formula_classifier().adapt(SPEAKER, sampling_rate=RATE)


def test_there_may_be_many_labels():
    labels = tuple(f"label {place}" for place in range(200))
    block = ModelConfig(labels, mean_logits=(0.5,) * 200).to_block()
    assert ModelConfig.from_block(json.loads(json.dumps(block))).mean_logits == (0.5,) * 200


@pytest.mark.parametrize("means", [[0.0] * 3, [0.0, 0.0, 0.0, "1"], [float("nan")] * 4], ids=str)
def test_mean_logits_that_are_not_one_number_per_label_are_refused(means):
    with pytest.raises(ValueError, match="mean_logits needs one number for each label"):
        ModelConfig.from_block({"schema": 1, "labels": list(LABELS), "mean_logits": means})
