"""What is loaded is what was trained; what does not fit is refused with a sentence."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from support.models import LABELS, loud_model, pad, random_clips, small_config
from transformers import (
    AutoModelForAudioClassification,
    HubertConfig,
    HubertForSequenceClassification,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForSequenceClassification,
    WavLMConfig,
    WavLMForSequenceClassification,
    pipeline,
)

from emoser.checkpoints.resolve import find_checkpoint
from emoser.checkpoints.save import load_model, save_model
from emoser.errors import CheckpointError

GENUINE = {
    "wav2vec2-group": (Wav2Vec2ForSequenceClassification, Wav2Vec2Config, {}),
    "wav2vec2-layer": (
        Wav2Vec2ForSequenceClassification,
        Wav2Vec2Config,
        {"feat_extract_norm": "layer", "do_stable_layer_norm": True},
    ),
    "hubert-group": (HubertForSequenceClassification, HubertConfig, {}),
    "hubert-layer-sum": (
        HubertForSequenceClassification,
        HubertConfig,
        {"feat_extract_norm": "layer", "use_weighted_layer_sum": True},
    ),
    "wavlm-group": (WavLMForSequenceClassification, WavLMConfig, {}),
    "wavlm-stable-sum": (
        WavLMForSequenceClassification,
        WavLMConfig,
        {
            "feat_extract_norm": "layer",
            "do_stable_layer_norm": True,
            "use_weighted_layer_sum": True,
        },
    ),
}


def write_genuine(folder, kind, config_kind, changes, *, normalize=True):
    """A checkpoint written by transformers itself, with random weights."""
    config = small_config(
        config_kind,
        **changes,
        id2label={0: "neu", 1: "HAP", 2: "anger", 3: "sad"},
        label2id={"neu": 0, "HAP": 1, "anger": 2, "sad": 3},
    )
    torch.manual_seed(0)
    model = kind(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2.0) if parameter.ndim > 1 else parameter.add_(0.01)
        if config.use_weighted_layer_sum:
            model.layer_weights.copy_(torch.randn(model.layer_weights.shape))
    model.save_pretrained(folder)
    Wav2Vec2FeatureExtractor(do_normalize=normalize).save_pretrained(folder)
    return model


@pytest.mark.parametrize("normalize", [True, False], ids=["normalized", "raw"])
@pytest.mark.parametrize("name", GENUINE)
def test_a_checkpoint_of_transformers_gives_transformers_numbers(name, normalize, tmp_path):
    theirs = write_genuine(tmp_path, *GENUINE[name], normalize=normalize)
    extractor = Wav2Vec2FeatureExtractor.from_pretrained(tmp_path)
    ours = load_model(tmp_path)
    clips = random_clips((16_000, 5_000, 30_000))
    with torch.inference_mode():
        expected = torch.cat(
            [
                theirs(
                    extractor(clip, sampling_rate=16_000, return_tensors="pt").input_values
                ).logits
                for clip in clips
            ]
        )
        alone = torch.cat([ours(torch.from_numpy(clip)[None]).logits for clip in clips])
        batched = ours(*pad(clips)).logits
    assert ours.config.labels == ("neutral", "happy", "angry", "sad")
    assert ours.config.raw_labels == ("neu", "HAP", "anger", "sad")
    torch.testing.assert_close(alone, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(batched, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("projection_size", [None, 24], ids=["linear", "projector"])
@pytest.mark.parametrize("kind", [HubertConfig, Wav2Vec2Config, WavLMConfig])
def test_a_saved_model_gives_the_same_numbers_through_the_pipeline(kind, projection_size, tmp_path):
    head = "linear" if projection_size is None else "projector"
    model = loud_model(small_config(kind), head=head, projection_size=projection_size)
    save_model(model, tmp_path / "model")
    pipe = pipeline("audio-classification", str(tmp_path / "model"), dtype=torch.float32)
    for clip in random_clips((16_000, 7_777)):
        theirs = {item["label"]: item["score"] for item in pipe(clip, top_k=None)}
        with torch.inference_mode():
            ours = model(torch.from_numpy(clip)[None]).logits.softmax(-1)[0]
        for label, value in zip(LABELS, ours.tolist(), strict=True):
            assert theirs[label] == pytest.approx(value, abs=1e-6)


def test_a_temperature_is_folded_into_the_weights(tmp_path):
    model = loud_model(small_config(), temperature=2.5)
    save_model(model, tmp_path / "model")
    loaded = load_model(tmp_path / "model")
    batch, lengths = pad(random_clips((8_000, 9_000)))
    with torch.inference_mode():
        expected = model(batch, lengths).logits / 2.5
        torch.testing.assert_close(loaded(batch, lengths).logits, expected)
    assert loaded.config.temperature == 1.0


def test_saving_and_loading_keeps_every_tensor_and_the_configuration(tmp_path):
    model = loud_model(
        small_config(Wav2Vec2Config), layer_mix=True, max_seconds=12.0, training={"seed": 3}
    )
    save_model(model, tmp_path / "model")
    loaded = load_model(tmp_path / "model")
    assert loaded.config == model.config.__class__(
        **{**model.config.__dict__, "encoder": "wav2vec2"}
    )
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name


def test_shards_are_read(tmp_path):
    kind, config, changes = GENUINE["wav2vec2-group"]
    theirs = write_genuine(tmp_path / "whole", kind, config, changes)
    theirs.save_pretrained(tmp_path / "sharded", max_shard_size="100KB")
    assert (tmp_path / "sharded" / "model.safetensors.index.json").is_file()
    whole, sharded = load_model(tmp_path / "whole"), load_model(tmp_path / "sharded")
    for name, tensor in whole.state_dict().items():
        assert torch.equal(sharded.state_dict()[name], tensor), name


def test_old_names_of_weight_norm_are_read(tmp_path):
    kind, config, changes = GENUINE["hubert-group"]
    write_genuine(tmp_path, kind, config, changes)
    expected = load_model(tmp_path).state_dict()
    tensors = load_file(tmp_path / "model.safetensors")
    for new, old in (("original0", "weight_g"), ("original1", "weight_v")):
        name = f"hubert.encoder.pos_conv_embed.conv.parametrizations.weight.{new}"
        if name in tensors:
            tensors[f"hubert.encoder.pos_conv_embed.conv.{old}"] = tensors.pop(name)
    save_file(tensors, tmp_path / "model.safetensors")
    for name, tensor in load_model(tmp_path).state_dict().items():
        assert torch.equal(expected[name], tensor), name


def test_half_precision_weights_are_read_as_float32(tmp_path):
    kind, config, changes = GENUINE["hubert-layer-sum"]
    write_genuine(tmp_path, kind, config, changes).half().save_pretrained(tmp_path)
    assert {tensor.dtype for tensor in load_model(tmp_path).state_dict().values()} == {
        torch.float32
    }


def change_config(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    config.update(changes)
    (folder / "config.json").write_text(json.dumps(config))


def change_tensors(folder, change):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


FAULTS = {
    "no config": (lambda f: (f / "config.json").unlink(), "no config.json"),
    "bad JSON": (lambda f: (f / "config.json").write_text("{"), "not valid JSON"),
    "a list": (lambda f: (f / "config.json").write_text("[]"), "holds a list"),
    "unknown model_type": (lambda f: change_config(f, model_type="bert"), "model_type is 'bert'"),
    "wrong type": (lambda f: change_config(f, hidden_size="many"), "hidden_size is 'many'"),
    "huge": (
        lambda f: change_config(f, hidden_size=2**20, num_attention_heads=4),
        "hidden_size is 1048576, allowed are whole numbers from 1 to 65,536",
    ),
    "no labels": (lambda f: change_config(f, id2label={}), "names no labels"),
    "gap": (
        lambda f: change_config(
            f, id2label={"0": "a", "1": "b", "2": "c", "4": "d"}, label2id=None
        ),
        "are not 0 to 3",
    ),
    "duplicate": (
        lambda f: change_config(
            f, id2label={"0": "a", "1": "A", "2": "c", "3": "d"}, label2id=None
        ),
        "appear twice",
    ),
    "contradiction": (
        lambda f: change_config(f, label2id={"neu": 3, "HAP": 1, "anger": 2, "sad": 0}),
        "contradicts",
    ),
    "control character": (
        lambda f: change_config(
            f, id2label={"0": "a", "1": "b\u001b[31m", "2": "c", "3": "d"}, label2id=None
        ),
        "control or path",
    ),
    "seven labels for four rows": (
        lambda f: change_config(f, id2label={str(i): f"l{i}" for i in range(7)}, label2id=None),
        r"classifier.weight is \(4, 24\) and should be \(7, 24\)",
    ),
    "no weights": (
        lambda f: (f / "model.safetensors").unlink(),
        "has no weights that emoser reads: model.safetensors",
    ),
    "truncated": (
        lambda f: (f / "model.safetensors").write_bytes(
            (f / "model.safetensors").read_bytes()[:5000]
        ),
        "not a whole safetensors file",
    ),
    "HTML": (
        lambda f: (f / "model.safetensors").write_text("<html>not found</html>"),
        "is a web page, not the file itself",
    ),
    "missing tensor": (
        lambda f: change_tensors(f, lambda t: t.pop("hubert.encoder.layer_norm.weight")),
        "missing: encoder.backbone.encoder.layer_norm.weight",
    ),
    "unexpected tensor": (
        lambda f: change_tensors(f, lambda t: t.update(extra=torch.ones(2))),
        "unexpected: extra",
    ),
    "another head": (
        lambda f: change_tensors(f, lambda t: [t.pop("projector.weight"), t.pop("projector.bias")]),
        "no classification head",
    ),
    "NaN": (
        lambda f: change_tensors(f, lambda t: t["classifier.bias"].fill_(float("nan"))),
        "classifier.bias holds NaN",
    ),
    "integers": (
        lambda f: change_tensors(
            f, lambda t: t.update({"classifier.bias": torch.ones(4, dtype=torch.int8)})
        ),
        "classifier.bias is torch.int8",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_checkpoint_that_does_not_fit_is_refused_in_one_sentence(name, tmp_path):
    kind, config, changes = GENUINE["hubert-group"]
    write_genuine(tmp_path, kind, config, changes)
    damage, message = FAULTS[name]
    damage(tmp_path)
    with pytest.raises(CheckpointError, match=message):
        load_model(tmp_path)


def test_an_index_that_points_outside_its_folder_is_refused(tmp_path):
    kind, config, changes = GENUINE["hubert-group"]
    write_genuine(tmp_path / "model", kind, config, changes)
    (tmp_path / "model" / "model.safetensors").rename(tmp_path / "outside.safetensors")
    index = {"weight_map": {"classifier.bias": "../outside.safetensors"}}
    (tmp_path / "model" / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match="points outside"):
        load_model(tmp_path / "model")


def test_saving_onto_a_file_or_a_full_folder_is_refused(tmp_path):
    model = loud_model(small_config())
    (tmp_path / "file").write_text("here")
    with pytest.raises(NotADirectoryError, match="is a file"):
        save_model(model, tmp_path / "file")
    save_model(model, tmp_path / "model")
    with pytest.raises(FileExistsError, match="overwrite=True"):
        save_model(model, tmp_path / "model")
    save_model(model, tmp_path / "model", overwrite=True)
    assert sorted(item.name for item in tmp_path.iterdir()) == ["file", "model"]


def test_a_fault_while_saving_leaves_the_old_folder(tmp_path, monkeypatch):
    model = loud_model(small_config())
    save_model(model, tmp_path / "model")
    before = (tmp_path / "model" / "model.safetensors").read_bytes()

    def full_disk(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("emoser.checkpoints.save._preprocessor", full_disk)
    with pytest.raises(OSError, match="model cannot be written: the disk is full"):
        save_model(model, tmp_path / "model", overwrite=True)
    assert (tmp_path / "model" / "model.safetensors").read_bytes() == before
    assert [item.name for item in tmp_path.iterdir()] == ["model"]


def test_a_name_that_is_nothing_is_refused():
    with pytest.raises(CheckpointError, match="neither a bundled checkpoint"):
        find_checkpoint("no such model")


def test_fresh_weights_depend_on_the_seed_alone():
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first = loud_model(small_config(), seed=1)
    assert torch.equal(torch.random.get_rng_state(), before)
    second, other = loud_model(small_config(), seed=1), loud_model(small_config(), seed=2)
    weight = "head.classifier.weight"
    assert torch.equal(first.state_dict()[weight], second.state_dict()[weight])
    assert not torch.equal(first.state_dict()[weight], other.state_dict()[weight])
    assert np.isfinite(first.state_dict()[weight].numpy()).all()


def test_auto_classes_of_transformers_find_the_saved_model(tmp_path):
    save_model(loud_model(small_config(WavLMConfig)), tmp_path / "model")
    model, report = AutoModelForAudioClassification.from_pretrained(
        tmp_path / "model", output_loading_info=True
    )
    assert type(model) is WavLMForSequenceClassification
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
