"""A graph that is not the one that was written is refused, or built again in the cache."""

import json
import os
import random
import shutil

import numpy as np
import pytest
from support.models import loud_model, random_clips, small_config

from emoser import EmotionClassifier
from emoser.checkpoints.atomic import remove_folder
from emoser.checkpoints.files import GRAPH_MANIFEST, as_files
from emoser.checkpoints.save import save_model
from emoser.errors import CheckpointError
from emoser.export import export
from emoser.models.config import ModelConfig
from emoser.runtimes import cache
from emoser.runtimes.manifest import PARTS, Manifest, Source, read_manifest

RATE = 16_000
NUM_FLIPS = 12
(CLIP,) = random_clips((RATE,))


def flip_bit(file, generator):
    """Change one bit and leave the times of the file as they were."""
    times = (file.stat().st_atime_ns, file.stat().st_mtime_ns)
    content = bytearray(file.read_bytes())
    content[generator.randrange(len(content))] ^= 1 << generator.randrange(8)
    file.write_bytes(content)
    os.utime(file, ns=times)


def answer(folder, backend):
    classifier = EmotionClassifier.from_pretrained(folder, backend=backend, device="cpu")
    return classifier.predict(CLIP, sampling_rate=RATE).scores


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sealed") / "model"
    save_model(loud_model(small_config()), folder)
    return folder


@pytest.fixture(scope="module")
def graphs(model, tmp_path_factory):
    made = {}

    def graph(to):
        pytest.importorskip({"onnx": "onnxruntime", "openvino": "openvino"}[to])
        if to not in made:
            made[to] = tmp_path_factory.mktemp("graphs") / to
            export(model, made[to], to=to)
        return made[to]

    return graph


@pytest.mark.parametrize("to", ["onnx", pytest.param("openvino", marks=pytest.mark.slow)])
def test_a_flipped_bit_of_an_exported_folder_is_refused(to, graphs, tmp_path):
    whole, generator = graphs(to), random.Random(7)
    assert set(answer(whole, to)) == {"neutral", "happy", "angry", "sad"}
    for number in range(NUM_FLIPS):
        folder = tmp_path / str(number)
        shutil.copytree(whole, folder)
        names = (*PARTS[to], GRAPH_MANIFEST)
        flip_bit(folder / names[number % len(names)], generator)
        with pytest.raises(CheckpointError):
            answer(folder, to)


@pytest.mark.parametrize("to", ["onnx", pytest.param("openvino", marks=pytest.mark.slow)])
def test_a_flipped_bit_of_a_cached_graph_is_built_again(to, model, tmp_path, monkeypatch):
    pytest.importorskip({"onnx": "onnxruntime", "openvino": "openvino"}[to])
    monkeypatch.setenv("EMOSER_CACHE", str(tmp_path))
    expected, generator = answer(model, to), random.Random(7)
    (entry,) = (tmp_path / "graphs").iterdir()
    for name in (*PARTS[to], GRAPH_MANIFEST, "sealed.json"):
        flip_bit(entry / name, generator)
        assert answer(model, to) == pytest.approx(expected, abs=1e-6)
    assert [item.name for item in (tmp_path / "graphs").iterdir()] == [entry.name]


@pytest.mark.slow  # converts four times
def test_an_entry_under_the_name_of_another_is_built_again(model, tmp_path, monkeypatch):
    pytest.importorskip("openvino")
    monkeypatch.setenv("EMOSER_CACHE", str(tmp_path / "cache"))
    other = tmp_path / "other"
    save_model(loud_model(small_config(), seed=3), other)
    expected = {folder: answer(folder, "openvino") for folder in (model, other)}
    one, two = sorted((tmp_path / "cache" / "graphs").iterdir())
    one.rename(tmp_path / "held")
    two.rename(one)
    (tmp_path / "held").rename(two)
    for folder in (model, other):
        assert answer(folder, "openvino") == pytest.approx(expected[folder], abs=1e-6)


REVERSED = {
    "labels": lambda values: values["config"]["labels"].reverse(),
    "raw labels": lambda values: values["config"]["raw_labels"].reverse(),
    "temperature": lambda values: values["config"].update(temperature=2.0),
    "normalisation": lambda values: values["config"].update(max_seconds=1.0),
    "hashes": lambda values: values["hashes"].clear(),
    "one label": lambda values: values["config"].update(labels=["a"], raw_labels=["a"]),
    "no seal": lambda values: values.pop("seal"),
    "no hashes": lambda values: values.pop("hashes"),
}


@pytest.mark.parametrize("name", REVERSED)
def test_a_changed_manifest_is_refused(name, graphs, tmp_path):
    folder = tmp_path / "graph"
    shutil.copytree(graphs("onnx"), folder)
    values = json.loads((folder / GRAPH_MANIFEST).read_text())
    REVERSED[name](values)
    (folder / GRAPH_MANIFEST).write_text(json.dumps(values))
    with pytest.raises(CheckpointError, match="has changed since it was exported"):
        answer(folder, "onnx")


def reseal(folder, **config):
    """A manifest for the graph in a folder that is sealed and states something else."""
    manifest = read_manifest(as_files(folder))
    stated = ModelConfig(**{"labels": manifest.config.labels, **config})
    source = Source("model", "transformers", "mit", 1_000)
    Manifest(manifest.format, manifest.dtype, stated, source, weights="0" * 64).write(folder)


@pytest.mark.parametrize("backend", ["onnx", "openvino"])
@pytest.mark.parametrize(
    "config",
    [
        {"labels": ("a",)},
        {"labels": tuple("abcdefghi")},
        {"labels": ("a", "b", "c"), "dimensions": ("valence", "arousal")},
        {"pooling": "frames", "frame_seconds": 0.02},
    ],
    ids=["one label", "nine labels", "dimensions", "frames"],
)
def test_labels_that_a_graph_has_no_outputs_for_are_refused(backend, config, graphs, tmp_path):
    pytest.importorskip(PACKAGES[backend])
    folder = tmp_path / "graph"
    shutil.copytree(graphs("onnx"), folder)
    reseal(folder, **config)
    with pytest.raises(CheckpointError, match=r"model\.onnx gives"):
        EmotionClassifier.from_pretrained(folder, backend=backend, device="cpu")


PACKAGES = {"onnx": "onnxruntime", "openvino": "openvino"}


@pytest.mark.parametrize("backend", PACKAGES)
def test_a_graph_that_says_nothing_of_its_outputs_is_run_before(backend, graphs, tmp_path):
    pytest.importorskip(PACKAGES[backend])
    onnx = pytest.importorskip("onnx")
    folder = tmp_path / "graph"
    shutil.copytree(graphs("onnx"), folder)
    graph = onnx.load(folder / "model.onnx")
    for output in graph.graph.output:
        for axis in output.type.tensor_type.shape.dim:
            axis.dim_param = "open"
    onnx.save(graph, folder / "model.onnx")
    reseal(folder)
    assert len(answer(folder, backend)) == 4
    reseal(folder, labels=("a", "b", "c"))
    with pytest.raises(CheckpointError, match="gives 4 logits, and its manifest names 3 labels"):
        answer(folder, backend)


@pytest.mark.parametrize("backend", PACKAGES)
def test_a_graph_that_gives_nan_gives_no_answer(backend, graphs, tmp_path):
    pytest.importorskip(PACKAGES[backend])
    onnx = pytest.importorskip("onnx")
    folder = tmp_path / "graph"
    shutil.copytree(graphs("onnx"), folder)
    graph = onnx.load(folder / "model.onnx")
    for tensor in graph.graph.initializer:
        if list(tensor.dims) == [4] and "classifier.bias" in tensor.name:
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.full(4, np.nan, "f4"), tensor.name))
    onnx.save(graph, folder / "model.onnx")
    reseal(folder)
    with pytest.raises(CheckpointError, match="gives NaN or infinity"):
        answer(folder, backend)


def test_a_flipped_bit_of_a_compiled_graph_is_compiled_again(tmp_path, monkeypatch):
    pytest.importorskip("openvino")
    monkeypatch.setenv("EMOSER_CACHE", str(tmp_path))
    expected, generator = answer("emoser-tiny", "openvino"), random.Random(7)
    (kept,) = (tmp_path / "compiled").glob("*/*.blob")
    for _ in range(3):
        kept.chmod(0o600)
        flip_bit(kept, generator)
        damaged = kept.read_bytes()
        assert answer("emoser-tiny", "openvino") == expected
        assert kept.read_bytes() != damaged


def test_what_openvino_refuses_to_import_is_compiled(tmp_path, monkeypatch):
    """Such as what another build of the same version wrote: it is whole, and means nothing here."""
    pytest.importorskip("openvino")
    monkeypatch.setenv("EMOSER_CACHE", str(tmp_path))
    expected = answer("emoser-tiny", "openvino")
    (kept,) = (tmp_path / "compiled").glob("*/*.blob")
    kept.write_bytes(b"<other/>" * 1_000)
    seal = cache._seal(kept.parent, name=kept.parent.name)
    (kept.parent / cache.SEAL).write_text(json.dumps(seal))
    assert answer("emoser-tiny", "openvino") == expected


def test_a_model_outlives_the_compiled_graph_that_it_was_read_from(tmp_path, monkeypatch):
    pytest.importorskip("openvino")
    monkeypatch.setenv("EMOSER_CACHE", str(tmp_path))
    first, imported = (
        EmotionClassifier.from_pretrained("emoser-tiny", backend="openvino", device="cpu")
        for _ in range(2)
    )
    expected = first.predict(CLIP, sampling_rate=RATE)
    (entry,) = (tmp_path / "compiled").iterdir()
    remove_folder(entry)
    assert not list((tmp_path / "compiled").iterdir())
    assert imported.predict(CLIP, sampling_rate=RATE) == expected


def test_a_graph_is_compiled_once(tmp_path, monkeypatch):
    pytest.importorskip("openvino")
    monkeypatch.setenv("EMOSER_CACHE", str(tmp_path))
    expected = answer("emoser-tiny", "openvino")
    (kept,) = (tmp_path / "compiled").glob("*/*.blob")
    compiled = kept.stat()
    assert answer("emoser-tiny", "openvino") == expected
    assert kept.stat().st_mtime_ns == compiled.st_mtime_ns
    assert kept.stat().st_ino == compiled.st_ino


def test_copies_of_an_exported_folder_share_one_compiled_graph(tmp_path, monkeypatch):
    pytest.importorskip("openvino")
    place = tmp_path / "cache"
    monkeypatch.setenv("EMOSER_CACHE", str(place))
    export("emoser-tiny", tmp_path / "first", to="openvino")
    assert not (place / "compiled").exists()  # the graph that was tested lay in a temporary folder
    shutil.copytree(tmp_path / "first", tmp_path / "second")
    assert answer(tmp_path / "first", "openvino") == answer(tmp_path / "second", "openvino")
    assert len(list((place / "compiled").glob("*/*.blob"))) == 1
