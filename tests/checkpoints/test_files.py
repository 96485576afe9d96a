"""A checkpoint folder is read once: no file is opened twice and the weights are hashed once."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import FrozenInstanceError

import pytest
from support.models import loud_model, random_clips, small_config
from support.reference_checkpoints import CASES, require

from emoser import EmotionClassifier
from emoser.checkpoints.files import (
    CARD,
    CONFIG,
    GOLDEN,
    GRAPH_MANIFEST,
    PREPROCESSOR,
    PROCESSOR,
    WEIGHTS,
    CheckpointFiles,
    as_files,
)
from emoser.checkpoints.layouts.registry import load_checkpoint
from emoser.checkpoints.resolve import BUNDLED
from emoser.checkpoints.save import save_model
from emoser.errors import CheckpointError
from emoser.export import LICENCE, export

ENGINES = {"torch": "torch", "onnx": "onnxruntime", "openvino": "openvino"}
KINDS = ("bundled", "transformers", "SpeechBrain", "exported")
SLOW_CHOICES = [("SpeechBrain", "openvino"), ("transformers", "openvino")]  # which convert
CHOICES = [
    pytest.param(
        kind,
        backend,
        id=f"{kind} by {backend}",
        marks=[pytest.mark.slow] * ((kind, backend) in SLOW_CHOICES),
    )
    for kind in KINDS
    for backend in ENGINES
    if (kind, backend) != ("exported", "torch")  # which it cannot run
]


class Watch:
    """Counts the files of one folder that Python opens; a hook cannot be removed again."""

    def __init__(self):
        self.folder = None
        self.opened = Counter()
        sys.addaudithook(self.count)

    def count(self, event, values):
        if self.folder is not None and event == "open" and isinstance(values[0], str):
            folder, name = os.path.split(os.path.realpath(values[0]))
            if folder == self.folder:
                self.opened[name] += 1

    def start(self, folder):
        self.opened = Counter()
        self.folder = os.path.realpath(folder)


@pytest.fixture(scope="module")
def watch():
    found = Watch()
    yield found
    found.folder = None


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """One folder of each kind, written when first needed."""
    place = tmp_path_factory.mktemp("folders")

    def write(kind):
        folder = place / kind
        if folder.exists():
            return folder
        if kind == "bundled":
            shutil.copytree(BUNDLED / "emoser-tiny", folder)
        elif kind == "transformers":
            save_model(loud_model(small_config()), folder)
        elif kind == "SpeechBrain":
            require("SpeechBrain IEMOCAP")
            CASES["SpeechBrain IEMOCAP"](folder)
        else:
            pytest.importorskip("onnx")
            pytest.importorskip("onnxruntime")
            export(write("transformers"), folder)
        for file in folder.iterdir():
            os.utime(file, (1e9, 1e9))  # old enough for its hash to be remembered
        return folder

    return write


SEALED = ("model.onnx", "openvino_model.xml", "openvino_model.bin", GRAPH_MANIFEST)
COMPILED = ".blob"


@pytest.mark.parametrize(("kind", "backend"), CHOICES)
def test_opening_and_predicting_open_no_file_twice(
    kind, backend, folders, watch, tmp_path, monkeypatch
):
    pytest.importorskip(ENGINES[backend])
    if backend == "onnx":
        pytest.importorskip("onnx")
    folder = folders(kind)
    weights = set() if kind == "exported" else set(as_files(folder).weights)
    hashed, digest = Counter(), hashlib.file_digest

    def count_hash(file, name):
        hashed[os.path.basename(file.name)] += 1
        return digest(file, name)

    monkeypatch.setattr(hashlib, "file_digest", count_hash)
    monkeypatch.setenv("EMOSER_CACHE", str(tmp_path))
    (clip,) = random_clips((8_000,))
    for number in range(2):  # where a graph must be converted, the second time it is in the cache
        hashed.clear()
        watch.start(folder)
        classifier = EmotionClassifier.from_pretrained(folder, backend=backend, device="cpu")
        classifier.predict(clip, sampling_rate=16_000)
        opened = watch.opened
        watch.folder = None
        assert classifier.info.backend == backend
        fresh_graph = kind in ("bundled", "exported")
        converted = backend != "torch" and not fresh_graph and number == 0
        needs_hash = converted or (backend != "torch" and kind == "bundled")
        others = {
            name: count
            for name, count in hashed.items()
            if name not in SEALED and not name.endswith(COMPILED)
        }
        assert others == dict.fromkeys(weights if needs_hash else (), 1)
        assert fresh_graph <= ("model.onnx" in hashed or backend == "torch")
        assert GOLDEN not in opened
        allowed = Counter(dict.fromkeys(opened, 1))
        if converted:  # pickles: once for the hash, once for the tensors; safetensors opens itself
            allowed.update(name for name in weights if name.endswith(".ckpt"))
        assert opened == allowed


STRACE = """
import sys
from emoser import EmotionClassifier
EmotionClassifier.from_pretrained(sys.argv[1], backend=sys.argv[2], device="cpu")
"""


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
@pytest.mark.parametrize(("kind", "backend"), [("transformers", "torch"), ("bundled", "onnx")])
def test_the_system_sees_no_file_opened_twice(kind, backend, folders, tmp_path):
    """Also by libraries in C++ and Rust; safetensors opens a file twice for each reader.

    A graph is read for its seal, and by the engine.
    """
    pytest.importorskip(ENGINES[backend])
    folder, log = folders(kind), tmp_path / "opened.txt"
    command = [
        "strace",
        "-f",
        "--seccomp-bpf",
        "-e",
        "trace=open,openat",
        "-o",
        str(log),
        sys.executable,
        "-c",
    ]
    done = subprocess.run([*command, STRACE, str(folder), backend], capture_output=True, text=True)
    if "Operation not permitted" in done.stderr:
        pytest.skip("strace may not trace here")
    assert done.returncode == 0, done.stderr
    paths = re.findall(r'open(?:at)?\((?:\w+, )?"([^"]+)", (?!.*O_DIRECTORY)', log.read_text())
    opened = Counter(path for path in paths if path.startswith(f"{folder}{os.sep}"))
    readers = {str(folder / (WEIGHTS if backend == "torch" else "model.onnx")): 2}
    assert opened
    assert opened == {path: readers.get(path, 1) for path in opened}


def test_a_record_is_frozen_and_keeps_what_it_read(folders, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(folders("bundled"), folder)
    files = as_files(folder)
    config, content_hash = files.config, files.content_hash
    with pytest.raises(FrozenInstanceError):
        files.folder = tmp_path
    (folder / CONFIG).write_text("{}")
    (folder / "new.json").write_text("{}")
    assert files.config is config
    assert files.content_hash == content_hash
    assert "new.json" not in files.stamps
    assert as_files(folder).config == {}
    assert as_files(folder).content_hash != content_hash
    assert as_files(files) is files


def test_the_hash_is_of_what_decides_the_numbers(folders, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(folders("bundled"), folder)
    manifest = json.loads((folder / GRAPH_MANIFEST).read_text())
    assert as_files(folder).content_hash == manifest["weights"]
    for name in (CARD, GOLDEN, GRAPH_MANIFEST, "model.onnx"):
        (folder / name).write_bytes(b"{}")
    assert as_files(folder).content_hash == manifest["weights"]
    (folder / PREPROCESSOR).write_bytes(b"{}")
    assert as_files(folder).content_hash != manifest["weights"]


def test_nested_settings_of_the_feature_extractor_come_first(folders, tmp_path):
    """As transformers reads them: `processor_config.json`, then `preprocessor_config.json`."""
    folder = tmp_path / "copy"
    shutil.copytree(folders("transformers"), folder)
    config = json.loads((folder / CONFIG).read_text())
    del config["emoser"]
    (folder / CONFIG).write_text(json.dumps(config))
    assert load_checkpoint(folder).model.config.normalization == "clip"
    (folder / PROCESSOR).write_text(json.dumps({"feature_extractor": {"do_normalize": False}}))
    assert load_checkpoint(folder).model.config.normalization == "none"
    (folder / PROCESSOR).write_text(json.dumps({"processor_class": "Wav2Vec2Processor"}))
    assert load_checkpoint(folder).model.config.normalization == "clip"


def test_a_description_beyond_any_size_is_refused(tmp_path):
    with (tmp_path / CONFIG).open("wb") as opened:
        opened.truncate(17 * 2**20)
    with pytest.raises(CheckpointError, match=r"17,825,792 bytes long; emoser reads up to 16,777"):
        _ = as_files(tmp_path).config


def test_a_folder_that_is_not_there_has_no_files(tmp_path):
    files = CheckpointFiles("nothing", tmp_path / "nothing")
    assert not files.stamps
    assert not files.has_weights
    with pytest.raises(CheckpointError, match="has no weights that emoser reads"):
        _ = files.weights


def test_documents_that_are_links_out_of_the_folder_are_not_copied(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("---\nlicense: mine\n---\nmy key")
    folder = tmp_path / "model"
    shutil.copytree(BUNDLED / "emoser-tiny", folder)
    for name in (CARD, LICENCE):
        (folder / name).unlink()
        (folder / name).symlink_to(secret)
    files = as_files(folder)
    assert (files.card, files.licence) == ("", None)
    with pytest.raises(CheckpointError, match="LICENSE is a link that leaves the checkpoint"):
        export(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (folder / LICENCE).unlink()
    (folder / "licence.txt").write_text("of the model")
    (folder / LICENCE).symlink_to("licence.txt")
    assert files.is_inside(LICENCE)


def test_links_to_the_blobs_of_the_hub_are_inside(tmp_path):
    snapshot = tmp_path / "snapshots" / "0123"
    for place in (snapshot, tmp_path / "blobs"):
        place.mkdir(parents=True)
    (tmp_path / "blobs" / "abc").write_text("a card")
    (tmp_path / "secret").write_text("my key")
    (snapshot / CARD).symlink_to("../../blobs/abc")
    (snapshot / LICENCE).symlink_to("../../secret")
    files = as_files(snapshot)
    assert files.card == "a card"
    assert not files.is_inside(LICENCE)
