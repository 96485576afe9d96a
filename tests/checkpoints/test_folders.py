"""Names that lead to a checkpoint, and names that lead to one sentence."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.reference_checkpoints import CASES
from transformers import HubertForSequenceClassification

from emoser.checkpoints.layouts.registry import load_checkpoint
from emoser.checkpoints.pretrained import start_model
from emoser.checkpoints.resolve import HubName, find_checkpoint, parse_hub_name
from emoser.errors import CheckpointError
from emoser.models.config import ModelConfig
from emoser.runtimes.opening import open_runtime

CASE = "Hubert, raw input"
WEIGHTS, PICKLE = "model.safetensors", "pytorch_model.bin"
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("source") / "model"
    CASES[CASE](folder)
    return folder


def copy(source, folder):
    shutil.copytree(source, folder)
    return folder


def rename(folder, prefix):
    tensors = load_file(folder / WEIGHTS)
    save_file({prefix + name: value for name, value in tensors.items()}, folder / WEIGHTS)


def is_same(folder, source):
    ours = load_checkpoint(folder).model.state_dict()
    theirs = load_checkpoint(source).model.state_dict()
    return all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize(
    "prefix", ["module.", "_orig_mod.", "module._orig_mod.", "base_model.model.", "model."]
)
def test_what_wrappers_add_to_names_is_removed(prefix, source, tmp_path):
    folder = copy(source, tmp_path / "model")
    rename(folder, prefix)
    assert is_same(folder, source)
    started = start_model(folder, ModelConfig(labels=("a", "b")), seed=0).encoder.state_dict()
    plain = start_model(source, ModelConfig(labels=("a", "b")), seed=0).encoder.state_dict()
    assert all(torch.equal(started[name], plain[name]) for name in plain)


@pytest.mark.parametrize("file", ["config.json", "preprocessor_config.json"])
def test_a_byte_order_mark_is_no_part_of_json(file, source, tmp_path):
    folder = copy(source, tmp_path / "model")
    (folder / file).write_bytes(b"\xef\xbb\xbf" + (folder / file).read_bytes())
    assert is_same(folder, source)


@pytest.mark.parametrize("file", [WEIGHTS, PICKLE, "config.json", "preprocessor_config.json"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (POINTER, "is a pointer of Git LFS, not the file itself; run `git lfs pull`"),
        ("\n<!DOCTYPE html><title>Sign in</title>", "is a web page, not the file itself"),
    ],
)
def test_what_stands_in_for_a_file_is_named(file, content, message, source, tmp_path):
    folder = copy(source, tmp_path / "model")
    if file == PICKLE:
        (folder / WEIGHTS).unlink()
    (folder / file).write_text(content)
    with pytest.raises(CheckpointError, match=rf"{file} {message}"):
        load_checkpoint(folder)


def test_a_run_stands_for_its_best_checkpoint(source, tmp_path):
    copy(source, tmp_path / "run" / "best")
    (tmp_path / "run" / "config.json").write_text('{"epochs": 3}')
    files = find_checkpoint(tmp_path / "run")
    assert files.folder == tmp_path / "run" / "best"
    assert files.name == "run"


def test_a_folder_of_runs_is_refused_with_their_names(source, tmp_path):
    copy(source, tmp_path / "runs" / "fold-1" / "best")
    copy(source, tmp_path / "runs" / "fold-2")
    with pytest.raises(CheckpointError, match="holds fold-1, fold-2; name one of them"):
        find_checkpoint(tmp_path / "runs")


def test_the_output_of_a_trainer_is_refused_with_its_best_checkpoint(source, tmp_path):
    folder = tmp_path / "out"
    copy(source, folder / "checkpoint-9")
    copy(source, folder / "checkpoint-10")
    with pytest.raises(CheckpointError, match=r"name its newest checkpoint, .*checkpoint-10"):
        find_checkpoint(folder)
    state = {"best_model_checkpoint": "elsewhere/checkpoint-9"}
    (folder / "checkpoint-10" / "trainer_state.json").write_text(json.dumps(state))
    with pytest.raises(CheckpointError, match=r"name its best checkpoint, .*checkpoint-9"):
        find_checkpoint(folder)
    shutil.copytree(source, folder, dirs_exist_ok=True)  # as Trainer.save_model does
    assert find_checkpoint(folder).folder == folder


def test_a_repository_in_the_cache_of_the_hub_stands_for_a_commit(source, tmp_path):
    root = tmp_path / "models--org--name"
    copy(source, root / "snapshots" / "aaa")
    assert find_checkpoint(root).revision == "aaa"
    assert find_checkpoint(root).name == "org/name"
    copy(source, root / "snapshots" / "bbb")
    with pytest.raises(CheckpointError, match="holds no 'main'; pass revision= with one of aaa, b"):
        find_checkpoint(root)
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text("bbb")
    assert find_checkpoint(root).folder == root / "snapshots" / "bbb"
    assert find_checkpoint(root, revision="aaa").revision == "aaa"
    with pytest.raises(CheckpointError, match=r"a cache of the Hub; name a model by .*org/name"):
        find_checkpoint(tmp_path)


def test_adapters_of_peft_are_refused_and_their_merged_model_loads(source, tmp_path):
    peft = pytest.importorskip("peft")
    model = HubertForSequenceClassification.from_pretrained(source)
    settings = peft.LoraConfig(
        target_modules=["q_proj"], modules_to_save=["projector", "classifier"], r=2
    )
    adapted = peft.get_peft_model(model, settings)
    adapted.save_pretrained(tmp_path / "adapter")
    beside = copy(source, tmp_path / "beside")
    shutil.copytree(tmp_path / "adapter", beside, dirs_exist_ok=True)
    for folder in (tmp_path / "adapter", beside):
        with pytest.raises(CheckpointError, match=rf"adapter of PEFT for {source}, .*merge"):
            find_checkpoint(folder)
    inside = copy(source, tmp_path / "inside")
    save_file(dict(adapted.state_dict()), inside / WEIGHTS)
    with pytest.raises(CheckpointError, match="adapters of PEFT beside the weights"):
        load_checkpoint(inside)
    adapted.merge_and_unload().save_pretrained(tmp_path / "merged")
    shutil.copy(source / "preprocessor_config.json", tmp_path / "merged")
    assert is_same(tmp_path / "merged", source)  # a new adapter changes nothing


def test_a_tilde_is_the_home_folder(source, tmp_path, monkeypatch):
    copy(source, tmp_path / "model")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert find_checkpoint("~/model").folder == tmp_path / "model"


PAGES = {
    "https://huggingface.co/org/name": HubName("org/name", None),
    "https://huggingface.co/org/name/": HubName("org/name", None),
    "https://huggingface.co/org/name?library=transformers": HubName("org/name", None),
    "https://huggingface.co/org/name/tree/main": HubName("org/name", "main"),
    "https://huggingface.co/org/name/tree/refs%2Fpr%2F2": HubName("org/name", "refs/pr/2"),
    "https://huggingface.co/org/name/blob/v1/config.json": HubName("org/name", "v1"),
    "https://huggingface.co/org/name/resolve/v1/model.safetensors": HubName("org/name", "v1"),
    "http://hf.co/org/name": HubName("org/name", None),
    "huggingface.co/org/name": HubName("org/name", None),
    "hf://org/name": HubName("org/name", None),
    "org/name": HubName("org/name", None),
    "org/name/": HubName("org/name", None),
    "org/name@v1": HubName("org/name", "v1"),
    "./org/name": None,
    "../name": None,
    "a/b/c": None,
}


@pytest.mark.parametrize("name", PAGES)
def test_the_address_of_a_page_is_a_name(name):
    assert parse_hub_name(name) == PAGES[name]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("https://example.com/model.zip", "is not on the Hub; download it to a folder"),
        ("https://huggingface.co/datasets/org/name", "is not the address of a model"),
        ("https://huggingface.co/", "is not the address of a model"),
        ("https://huggingface.co/org/name/tree/main/onnx", "is a folder inside a repository"),
        ("/nowhere/model", "is a folder that does not exist"),
        ("~/nowhere", "is a folder that does not exist"),
        ("a/b/c", "is a folder that does not exist"),
        ("no such model", "neither a bundled checkpoint"),
    ],
)
def test_other_names_end_in_one_sentence(name, message):
    with pytest.raises(CheckpointError, match=message):
        find_checkpoint(name, local_files_only=True)


def test_a_file_of_a_checkpoint_names_its_folder(source):
    with pytest.raises(CheckpointError, match=rf"is a file; name the folder .*{source}"):
        find_checkpoint(source / WEIGHTS)


def test_two_revisions_are_refused():
    with pytest.raises(ValueError, match=r"revision is 'v2' and .* names 'v1'; leave one out"):
        find_checkpoint("https://hf.co/org/name/tree/v1", revision="v2", local_files_only=True)


def test_a_pointer_in_the_place_of_a_graph_is_named(tmp_path):
    pytest.importorskip("onnxruntime")
    folder = copy(find_checkpoint("emoser-tiny").folder, tmp_path / "model")
    (folder / WEIGHTS).unlink()
    (folder / "model.onnx").write_text(POINTER)
    with pytest.raises(CheckpointError, match=r"model\.onnx is a pointer of Git LFS"):
        open_runtime(find_checkpoint(folder), backend="onnx")
