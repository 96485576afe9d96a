"""A classifier pickles: where it is unpickled, it opens its checkpoint in the same way."""

import multiprocessing
import os
import pickle

import pytest
from support.models import loud_model, random_clips, small_config

from emoser import EmotionClassifier
from emoser.checkpoints.save import save_model

RATE = 16_000
PACKAGES = {"torch": "torch", "onnx": "onnxruntime", "openvino": "openvino"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_model(loud_model(small_config()), tmp_path_factory.mktemp("pickled") / "model")


@pytest.fixture(scope="module")
def clip():
    return random_clips([RATE])[0]


def ask(classifier, clip):
    return classifier.predict(clip, sampling_rate=RATE).to_dict()


def load(folder, backend, **options):
    pytest.importorskip(PACKAGES[backend])
    return EmotionClassifier.from_pretrained(folder, device="cpu", backend=backend, **options)


@pytest.mark.parametrize("labels", [None, {"angry": "bad", "sad": "bad"}], ids=["own", "mapped"])
@pytest.mark.parametrize("backend", PACKAGES)
def test_an_unpickled_classifier_gives_the_same_answers(backend, labels, folder, clip):
    classifier = load(folder, backend, labels=labels)
    again = pickle.loads(pickle.dumps(classifier))
    assert ask(again, clip) == ask(classifier, clip)
    assert again.info == classifier.info
    assert again.labels == classifier.labels
    assert len(pickle.dumps(classifier)) < 2_000  # the weights stay in their file


def test_a_relative_folder_is_found_from_another_working_folder(folder, clip, monkeypatch):
    monkeypatch.chdir(folder.parent)
    classifier = load(folder.name, "torch")
    monkeypatch.chdir(os.path.sep)
    assert ask(pickle.loads(pickle.dumps(classifier)), clip) == ask(classifier, clip)


def test_an_exported_folder_pickles(tmp_path, clip):
    pytest.importorskip("onnxruntime")
    from emoser.export import export

    export("emoser-tiny", tmp_path / "graph")
    classifier = EmotionClassifier.from_pretrained(tmp_path / "graph", backend="onnx")
    assert ask(pickle.loads(pickle.dumps(classifier)), clip) == ask(classifier, clip)


@pytest.mark.slow
@pytest.mark.parametrize("backend", PACKAGES)
def test_processes_that_are_spawned_take_a_classifier(backend, folder, clip):
    classifier = load(folder, backend)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(ask, (classifier, clip)) == ask(classifier, clip)


@pytest.mark.slow
def test_joblib_takes_a_classifier(folder, clip):
    joblib = pytest.importorskip("joblib")
    classifier = load(folder, "torch")
    answers = joblib.Parallel(n_jobs=2)(joblib.delayed(ask)(classifier, clip) for _ in range(2))
    assert answers == [ask(classifier, clip)] * 2
