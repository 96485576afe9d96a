"""Malformed checkpoints end in one sentence: no traceback, nothing predicted."""

import json
import pickle
import shutil
import struct
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.reference_checkpoints import CASES, require

from emoser.checkpoints.conversion import convert_checkpoint
from emoser.checkpoints.files import CheckpointFiles
from emoser.checkpoints.layouts.registry import load_checkpoint
from emoser.cli import main
from emoser.errors import CheckpointError

CLIP = Path(__file__).parents[2] / "examples" / "audio" / "plain.wav"
GENERIC, SOXAN, CTC = "Hubert, raw input", "soxan, mean", "CTC head"
EHCALABRES, SPEECHBRAIN = "ehcalabres, no activation", "SpeechBrain IEMOCAP"
ODYSSEY, VOX, EMOTION2VEC, OWN = "Odyssey categorical", "Vox-Profile", "emotion2vec", "own"
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLE = "pytorch_model.bin"


def configure(**changes):
    def damage(folder):
        config = json.loads((folder / "config.json").read_text())
        config.update(changes)
        (folder / "config.json").write_text(json.dumps(config))

    return damage


def label(**names):
    """Other labels; label2id goes, so that it cannot be what is refused."""
    values = {key.removeprefix("_"): name for key, name in names.items()}
    return configure(id2label=values, label2id=None)


def tensors(change, file=WEIGHTS):
    def damage(folder):
        held = load_file(folder / file)
        change(held)
        save_file(held, folder / file)

    return damage


def pickled(change, file):
    def damage(folder):
        held = torch.load(folder / file, weights_only=True)
        change(held)
        torch.save(held, folder / file)

    return damage


def write(name, content):
    def damage(folder):
        data = content if isinstance(content, bytes) else content.encode()
        (folder / name).write_bytes(data)

    return damage


def only(name, content):
    """The weights replaced by a file of another name."""

    def damage(folder):
        (folder / WEIGHTS).unlink()
        write(name, content)(folder) if content is not None else None

    return damage


def cut(name, size):
    return lambda folder: write(name, (folder / name).read_bytes()[:size])(folder)


def remove(name):
    return lambda folder: (folder / name).unlink()


class Touch:
    """A pickle that would make a file when it is read carelessly."""

    def __reduce__(self):
        return (open, ("emoser-was-here", "w"))


def archive(*members):
    def damage(folder):
        (folder / WEIGHTS).unlink()
        with zipfile.ZipFile(folder / PICKLE, "w", zipfile.ZIP_DEFLATED) as opened:
            for name, content in members:
                opened.writestr(name, content)

    return damage


def outside(folder):
    (folder / WEIGHTS).rename(folder.parent / "outside.safetensors")
    weight_map = {"classifier.bias": "../outside.safetensors"}
    (folder / INDEX).write_text(json.dumps({"weight_map": weight_map}))


def half_a_pair(held):
    name = next(name for name in held if name.endswith(("weight_g", "original0")))
    held.pop(name)


def change_block(**changes):
    def damage(folder):
        config = json.loads((folder / "config.json").read_text())
        config["emoser"].update(changes)
        (folder / "config.json").write_text(json.dumps(config))

    return damage


BIAS, HEAD = "classifier.bias", "classifier.weight"
FAULTS = {
    "no config": (GENERIC, remove("config.json"), "no config.json"),
    "config cut off": (GENERIC, cut("config.json", 40), "not valid JSON"),
    "config a list": (GENERIC, write("config.json", "[]"), "holds a list"),
    "config an expression": (
        ODYSSEY,
        write("config.json", '{"model_type": "ser", "maxlen": 16000*12}'),
        "not valid JSON",
    ),
    "unknown model type": (GENERIC, configure(model_type="bert"), "model_type is 'bert'"),
    "no model type": (GENERIC, configure(model_type=None), "model_type is None"),
    "a billion wide": (
        GENERIC,
        configure(hidden_size=10**9),
        "hidden_size is 1000000000, allowed are whole numbers from 1 to 65,536",
    ),
    "a million deep": (
        GENERIC,
        configure(num_hidden_layers=10**6),
        "num_hidden_layers is 1000000, allowed are whole numbers from 1 to 256",
    ),
    "wide and deep": (
        GENERIC,
        configure(hidden_size=65_536, num_hidden_layers=12),
        "weights; emoser loads up to 4,000,000,000",
    ),
    "width a word": (
        GENERIC,
        configure(hidden_size="wide"),
        "hidden_size is 'wide', allowed are whole",
    ),
    "heads that do not divide": (
        GENERIC,
        configure(num_attention_heads=5),
        "does not describe a hubert encoder",
    ),
    "adapter": ("Wav2Vec2, group norm", configure(add_adapter=True), "add_adapter is set"),
    "no labels": (GENERIC, configure(id2label={}, label2id={}), "names no labels"),
    "labels a list": (GENERIC, configure(id2label=["a"], label2id=None), "names no labels"),
    "label index a word": (GENERIC, label(one="a"), "is not a number"),
    "label gap": (GENERIC, label(_0="a", _1="b", _2="c", _4="d"), "are not 0 to 3"),
    "label twice": (GENERIC, label(_0="sad", _1="Sad ", _2="c", _3="d"), "appear twice"),
    "label with C1": (GENERIC, label(_0="a\x9b31m", _1="b", _2="c", _3="d"), "control or path"),
    "label from the right": (GENERIC, label(_0="a\u202eb", _1="b", _2="c", _3="d"), "control or"),
    "emoser with a label of control": (
        OWN,
        change_block(labels=["a\x1b[2J", *"bcdefgh"]),
        "control or path",
    ),
    "label empty": (GENERIC, label(_0=" ", _1="b", _2="c", _3="d"), "are not names"),
    "label a number": (GENERIC, label(_0=0, _1="b", _2="c", _3="d"), "are not names"),
    "label steers the terminal": (GENERIC, label(_0="\x1b[31m", _1="b", _2="c", _3="d"), "control"),
    "label a path": (GENERIC, label(_0="../../etc", _1="b", _2="c", _3="d"), "path characters"),
    "label2id contradicts": (GENERIC, configure(label2id={"neu": 3}), "contradicts id2label"),
    "seven labels for four rows": (
        GENERIC,
        label(**{f"_{i}": f"l{i}" for i in range(7)}),
        r"is \(4,\) and should be \(7,\)",
    ),
    "an encoder alone": (
        GENERIC,
        tensors(lambda t: [t.pop(n) for n in list(t) if not n.startswith("hubert.")]),
        "no classification head",
    ),
    "half a head": (GENERIC, tensors(lambda t: t.pop(BIAS)), "nearest is 'transformers'"),
    "encoder tensor missing": (
        GENERIC,
        tensors(lambda t: t.pop("hubert.encoder.layers.1.final_layer_norm.bias")),
        "missing: encoder.backbone.encoder.layers.1.final_layer_norm.bias",
    ),
    "tensor unexpected": (GENERIC, tensors(lambda t: t.update(x=torch.ones(2))), "unexpected: x"),
    "tensor misshapen": (
        GENERIC,
        tensors(lambda t: t.update({HEAD: torch.ones(4, 9)})),
        r"head.classifier.weight is \(4, 9\) and should be \(4, 24\)",
    ),
    "half a weight norm": (GENERIC, tensors(half_a_pair), "missing: .*original0"),
    "NaN": (GENERIC, tensors(lambda t: t[BIAS].fill_(float("nan"))), f"{BIAS} holds NaN"),
    "infinity": (GENERIC, tensors(lambda t: t[BIAS].fill_(float("inf"))), f"{BIAS} holds NaN or"),
    "integers": (
        GENERIC,
        tensors(lambda t: t.update({BIAS: torch.ones(4, dtype=torch.int8)})),
        "torch.int8",
    ),
    "weights cut off": (GENERIC, cut(WEIGHTS, 5_000), "not a whole safetensors file"),
    "weights empty": (GENERIC, write(WEIGHTS, ""), "not a whole safetensors file"),
    "header of 2^63": (
        GENERIC,
        write(WEIGHTS, struct.pack("<Q", 2**63)),
        "not a whole safetensors",
    ),
    "a web page": (
        GENERIC,
        write(WEIGHTS, "<!doctype html>"),
        "is a web page, not the file itself",
    ),
    "a pointer of git": (
        GENERIC,
        write(WEIGHTS, "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"),
        "is a pointer of Git LFS, not the file itself",
    ),
    "no weights": (GENERIC, only("notes.txt", ""), "no weights that emoser reads"),
    "index points outside": (GENERIC, outside, "points outside its folder"),
    "index names what is not there": (
        GENERIC,
        only(INDEX, '{"weight_map": {"x": "model-00001-of-00001.safetensors"}}'),
        "is missing",
    ),
    "index cut off": (
        GENERIC,
        only(INDEX, '{"weight_map": {'),
        "index.json is not a weight index|is damaged",
    ),
    "index without names": (
        GENERIC,
        only(INDEX, "{}"),
        "index.json is not a weight index|is damaged",
    ),
    "a pickle that runs code": (
        GENERIC,
        only(PICKLE, pickle.dumps({BIAS: Touch()})),
        "holds more than tensors",
    ),
    "a pickle cut off": (GENERIC, only(PICKLE, b"\x80\x02}q\x00("), "damaged|not a whole file"),
    "a pickle of nothing": (GENERIC, only(PICKLE, b""), "not a whole file|damaged"),
    "an archive that points outside": (GENERIC, archive(("../data.pkl", b"x")), "outside of it"),
    "an archive that would grow": (GENERIC, archive(("data.pkl", b"0" * 10**6)), "would grow to"),
    "an unknown pooling": (SOXAN, configure(pooling_mode="median"), "pooling_mode is 'median'"),
    "half a soxan head": (
        SOXAN,
        tensors(lambda t: t.pop("classifier.out_proj.weight")),
        "no classification head of a layout",
    ),
    "an unknown activation": (
        EHCALABRES,
        configure(head_activation="swish"),
        "head_activation is 'swish'",
    ),
    "a speech recogniser": (
        CTC,
        tensors(
            lambda t: t.update(
                {"lm_head.weight": torch.ones(32, 64), "lm_head.bias": torch.ones(32)}
            )
        ),
        "looks like a speech recogniser",
    ),
    "SpeechBrain without labels": (SPEECHBRAIN, remove("label_encoder.txt"), "is missing"),
    "SpeechBrain without an encoder": (SPEECHBRAIN, remove("wav2vec2.ckpt"), "no weights"),
    "SpeechBrain with a label gap": (
        SPEECHBRAIN,
        write("label_encoder.txt", "'neu' => 0\n'ang' => 2\n"),
        "are not 0 to 1",
    ),
    "SpeechBrain with another head": (
        SPEECHBRAIN,
        pickled(lambda t: t.update({"0.w.weight": torch.ones(5, 128)}), "model.ckpt"),
        r"is \(5,\) and should be \(4,\)|is \(5, 128\) and should be \(4, 128\)",
    ),
    "Odyssey without its corpus": (ODYSSEY, configure(std=None), "std is None"),
    "Odyssey with half a pooling": (
        ODYSSEY,
        tensors(lambda t: t.pop("pool_model.attention")),
        "nearest is 'odyssey', which also needs pool_model.attention",
    ),
    "Vox-Profile with half an adapter": (
        VOX,
        tensors(lambda t: t.pop(next(n for n in t if n.endswith("lora_B")))),
        "has no counterpart",
    ),
    "emotion2vec without tokens": (EMOTION2VEC, remove("tokens.txt"), r"tokens\.txt is missing"),
    "emotion2vec with other tokens": (
        EMOTION2VEC,
        write("tokens.txt", "angry\nhappy\n"),
        "6 rows and tokens.txt 2 lines",
    ),
    "emoser of a newer schema": (OWN, change_block(schema=99), "upgrade emoser"),
    "emoser with an unknown field": (OWN, change_block(magic=1), "unknown fields"),
    "emoser with other labels": (OWN, change_block(raw_labels=[*"abcdefgh"]), "has the labels"),
    "emoser without its encoder": (OWN, configure(backbone_config=None), "lacks backbone_config"),
}


@pytest.fixture(scope="session")
def sources(tmp_path_factory):
    """A sound folder of each layout, written when first asked for."""
    made = {}

    def source(name):
        if name not in made:
            require(name)
            folder = tmp_path_factory.mktemp("sound") / "model"
            if name == OWN:
                convert_checkpoint(CheckpointFiles("odyssey", source(ODYSSEY)), folder)
            else:
                CASES[name](folder)
            load_checkpoint(folder)
            made[name] = folder
        return made[name]

    return source


@pytest.mark.parametrize("name", FAULTS)
def test_a_malformed_checkpoint_ends_in_one_sentence(name, sources, tmp_path, capsys, monkeypatch):
    layout, damage, message = FAULTS[name]
    folder = tmp_path / "model"
    shutil.copytree(sources(layout), folder)
    damage(folder)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(folder)
    capsys.readouterr()
    code = main(["predict", str(CLIP), "--model", str(folder)])
    shown = capsys.readouterr()
    lines = shown.err.strip().splitlines()
    assert code == 4
    assert shown.out == ""
    assert len(lines) == 1
    assert lines[0].startswith("emoser: ")
    assert not (tmp_path / "emoser-was-here").exists()
    print(f"{name}: {lines[0].replace(str(tmp_path), '')}")
