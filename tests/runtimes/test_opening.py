"""Every engine gives the numbers of torch, and is chosen as the user would."""

import copy

import pytest
import torch
from support.models import loud_model, random_clips, small_config
from transformers import Wav2Vec2Config, WavLMConfig, modeling_utils

from emoser.checkpoints.files import GRAPH_MANIFEST, CheckpointFiles, as_files
from emoser.checkpoints.resolve import BUNDLED
from emoser.errors import CheckpointError
from emoser.models.config import ModelConfig
from emoser.runtimes.conversion.graph import build_graph, example_samples
from emoser.runtimes.manifest import Manifest, Source, read_manifest
from emoser.runtimes.opening import find_graph, open_runtime
from emoser.runtimes.torch.convolutions import fold_weight_norms

LENGTHS = (16_000, 1, 399, 401, 5_000)


def manifest_of(config=None, **changes):
    config = config or ModelConfig(labels=("neutral", "happy"), training={"seed": 3})
    source = Source("model", "transformers", "mit", 1_000, notes=("a note",))
    values = {"format": "onnx", "dtype": "float32", "config": config, "source": source}
    return Manifest(**{**values, "weights": "0" * 64, "versions": {"torch": "2.14"}, **changes})


@pytest.mark.parametrize("kind", [Wav2Vec2Config, WavLMConfig])
def test_the_graph_gives_the_numbers_of_the_model_for_every_length(kind):
    model = loud_model(small_config(kind))
    graph = build_graph(model)
    with torch.inference_mode():
        for clip in random_clips(LENGTHS):
            batch = torch.from_numpy(clip).repeat(2, 1)
            for told, expected in zip(graph(batch), model(batch), strict=True):
                torch.testing.assert_close(told, expected, atol=1e-5, rtol=0)


def test_tracing_a_graph_prints_no_warning_of_transformers(monkeypatch):
    printed = []
    monkeypatch.setattr(modeling_utils.logger, "warning_once", printed.append)
    graph = build_graph(loud_model(small_config()))
    torch.jit.trace(graph, (example_samples(),), check_trace=False)
    assert printed == []


def test_making_a_graph_leaves_the_model_as_it_was():
    model = loud_model(small_config()).train()
    names = list(model.state_dict())
    build_graph(model)
    assert model.training
    assert list(model.state_dict()) == names
    assert any(name.endswith("parametrizations.weight.original0") for name in names)
    model.eval()(torch.zeros(1, 800))


def test_folding_the_weight_norms_of_a_copy_leaves_the_others_whole():
    model = loud_model(small_config())
    copies = [copy.deepcopy(model), copy.deepcopy(model)]
    batch = torch.from_numpy(random_clips((5_000,))[0])[None]
    with torch.inference_mode():
        expected = model(batch).logits
        fold_weight_norms(copies[0])
        for one in (model, *copies):
            torch.testing.assert_close(one(batch).logits, expected)


def test_a_manifest_is_read_as_it_was_written(tmp_path):
    manifest = manifest_of()
    (tmp_path / "model.onnx").write_bytes(b"graph")
    manifest.write(tmp_path)
    assert read_manifest(as_files(tmp_path)) == manifest


def test_a_folder_without_a_manifest_has_none(tmp_path):
    assert read_manifest(as_files(tmp_path)) is None


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("{", "is damaged"),
        ("[]", "is damaged"),
        ('{"schema": 2}', "its schema is 2"),
        ('{"schema": 1}', "has changed since it was exported"),
    ],
)
def test_a_damaged_manifest_is_refused(text, fault, tmp_path):
    (tmp_path / GRAPH_MANIFEST).write_text(text)
    with pytest.raises(CheckpointError, match=fault):
        read_manifest(as_files(tmp_path))


def test_a_manifest_without_its_graph_is_refused(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"graph")
    manifest_of().write(tmp_path)
    (tmp_path / "model.onnx").unlink()
    with pytest.raises(CheckpointError, match=r"has no model\.onnx; export the model again"):
        read_manifest(as_files(tmp_path))


def test_a_graph_of_other_weights_than_those_beside_it_is_not_used(tmp_path):
    for name in ("model.safetensors", "config.json"):
        (tmp_path / name).write_bytes((BUNDLED / "emoser-tiny" / name).read_bytes())
    (tmp_path / "model.onnx").write_bytes(b"graph")
    manifest_of(weights=as_files(tmp_path).content_hash).write(tmp_path)
    assert find_graph(as_files(tmp_path)) is not None
    (tmp_path / "config.json").write_text("{}")
    assert find_graph(as_files(tmp_path)) is None


def test_a_graph_alone_is_refused_by_torch(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"graph")
    manifest_of().write(tmp_path)
    with pytest.raises(CheckpointError, match="holds an exported onnx graph and no weights"):
        open_runtime(CheckpointFiles("model", tmp_path), backend="torch")


def test_an_unknown_engine_is_refused():
    with pytest.raises(ValueError, match="backend is 'tensorrt'; use one of auto, torch"):
        open_runtime(CheckpointFiles("x", BUNDLED / "emoser-tiny"), backend="tensorrt")
