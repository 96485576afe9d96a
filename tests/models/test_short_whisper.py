"""Whisper at the recording's own length: transformers' numbers, exact batches, all engines."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from support.models import LABELS, pad, random_clips, small_whisper
from transformers import AutoFeatureExtractor, WhisperConfig, WhisperFeatureExtractor, pipeline
from transformers.models.whisper.modeling_whisper import (
    WhisperEncoder,
    WhisperForAudioClassification,
    WhisperForConditionalGeneration,
)

from emoser import EmotionClassifier
from emoser.checkpoints.files import CheckpointFiles
from emoser.checkpoints.pretrained import start_model
from emoser.checkpoints.registration import register
from emoser.checkpoints.save import build_model, load_model, save_model
from emoser.errors import CheckpointError
from emoser.models.config import ModelConfig
from emoser.models.short_whisper import FRAME_SAMPLES, ShortWhisperEncoder
from emoser.runtimes.conversion.graph import build_graph
from emoser.runtimes.conversion.quantization import PRODUCTS, find_kept
from emoser.runtimes.conversion.writing import write_graph
from emoser.runtimes.opening import open_runtime

LENGTHS = (48_000, 1, 300, 16_001, 79_999, 16_000, 321, 320, 319, 161)
KINDS = {
    "mean": {},
    "raw": {"final_norm": False},
    "statistics": {"pooling": "statistics", "normalization": "level"},
    "attentive": {"pooling": "attentive-statistics"},
    "layer sum": {"layer_mix": True},
    "layer sum, raw": {"layer_mix": True, "final_norm": False, "normalization": "clip"},
}


def short_model(*, seed=0, whisper=None, **changes):
    """A random model whose frames differ between recordings."""
    stated = ModelConfig(
        labels=LABELS,
        encoder="whisper",
        padding="none",
        **{"normalization": "none", **changes},
    )
    model = build_model(whisper or small_whisper(), stated, seed=seed).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("weight") and parameter.ndim > 1 and "positions" not in name:
                parameter.mul_(4.0)
            if name.startswith("head."):
                parameter.copy_(torch.randn(parameter.shape, generator=generator) / 4)
    return model.requires_grad_(False)


def logits_alone(model, clips):
    with torch.inference_mode():
        return torch.cat([model(torch.from_numpy(clip)[None]).logits for clip in clips])


def theirs_at_length(model, clip):
    """transformers' encoder, its positions cut, on the feature extractor's first frames."""
    num_frames = -(-len(clip) // FRAME_SAMPLES)
    extractor = WhisperFeatureExtractor()
    features = extractor(clip, sampling_rate=16_000, return_tensors="pt").input_features
    config = WhisperConfig(**{**model.encoder.config.to_dict(), "max_source_positions": num_frames})
    encoder = WhisperEncoder(config).eval()
    state = dict(model.encoder.backbone.state_dict())
    state["embed_positions.weight"] = state["embed_positions.weight"][:num_frames]
    encoder.load_state_dict(state)
    cut = features[:, :, : 2 * num_frames]
    with torch.inference_mode():
        return cut, encoder(cut, output_hidden_states=True)


@pytest.mark.parametrize("length", [1, 160, 319, 4_000, 48_000, 48_123, 471_111])
def test_spectrogram_and_layers_are_those_of_transformers(length):
    model = short_model()
    [clip] = random_clips([length])
    features, expected = theirs_at_length(model, clip)
    samples = torch.from_numpy(clip)[None]
    with torch.inference_mode():
        ours = model.encoder.extract_features(samples, None)
        encoded = model.encoder(samples, all_layers=True)
    assert ours.shape == features.shape
    assert (ours - features).abs().max() <= 1e-4  # theirs is computed in float32
    assert len(encoded.hidden_states) == len(expected.hidden_states) == 4
    for own, other in zip(encoded.hidden_states, expected.hidden_states, strict=True):
        scale = float(other.abs().max())
        assert (own - other).abs().max() <= 2e-3 * scale
    with torch.inference_mode():
        same = model.encoder.contextualize(features, None).frames
    scale = float(expected.last_hidden_state.abs().max())
    assert (same - expected.last_hidden_state).abs().max() <= 1e-5 * scale


def test_the_maximum_behind_the_last_frame_counts_as_in_the_feature_extractor():
    """A click on the last sample is the loudest in the windows centred behind it."""
    clip = random_clips([FRAME_SAMPLES * 10])[0] * 1e-3
    clip[-1] = 1.0
    features, _ = theirs_at_length(short_model(), clip)
    ours = short_model().encoder.extract_features(torch.from_numpy(clip)[None], None)
    assert (ours - features).abs().max() <= 1e-4


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_gives_each_recording_the_numbers_it_gets_alone(kind):
    model = short_model(**KINDS[kind])
    clips = random_clips(LENGTHS)
    alone = logits_alone(model, clips)
    batch, lengths = pad(clips)
    garbage = batch.clone()
    for row, length in zip(garbage, lengths.tolist(), strict=True):
        row[length:] = 100.0
    with torch.inference_mode():
        batched = model(garbage, lengths).logits
    assert alone.std(dim=0).max() > 0.05
    assert (batched - alone).abs().max() <= 1e-5 * max(alone.abs().max(), 1.0)


def test_a_loud_recording_does_not_raise_the_floor_of_a_quiet_one():
    model = short_model()
    clips = random_clips((16_000, 9_000))
    clips[1] *= 1e-4
    alone = logits_alone(model, clips)
    with torch.inference_mode():
        batched = model(*pad(clips)).logits
    assert (batched - alone).abs().max() <= 1e-5 * max(alone.abs().max(), 1.0)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_a_batch_are_those_of_its_recordings(kind):
    model = short_model(**KINDS[kind]).train().requires_grad_(True)
    model.encoder.backbone.embed_positions.requires_grad_(False)
    clips = random_clips((9_000, 321, 4_000))
    model(*pad(clips)).logits.square().sum().backward()
    weights = model.encoder.backbone.conv1.weight, model.encoder.backbone.layers[2].fc1.weight
    batched = [weight.grad.clone() for weight in weights]
    model.zero_grad()
    for clip in clips:
        model(torch.from_numpy(clip)[None]).logits.square().sum().backward()
    for gradient, weight in zip(batched, weights, strict=True):
        torch.testing.assert_close(
            gradient, weight.grad, atol=1e-4 * float(gradient.abs().max()), rtol=0
        )


def test_thirty_seconds_fit_and_more_is_refused():
    model = short_model()
    with torch.inference_mode():
        assert model.encoder(torch.zeros(1, 480_000)).frames.shape == (1, 1500, 64)
        with pytest.raises(ValueError, match=r"takes up to 30 s, got 30\.1 s"):
            model(torch.zeros(1, 481_600))


def test_longer_recordings_go_through_windows(tmp_path):
    save_model(short_model(), tmp_path / "model")
    classifier = EmotionClassifier.from_pretrained(tmp_path / "model", backend="torch")
    [clip] = random_clips([37 * 16_000])
    prediction = classifier.predict(clip, sampling_rate=16_000)
    assert (prediction.duration, prediction.num_windows) == (37.0, 2)


@pytest.mark.parametrize("masked", ["mask_time_prob", "mask_feature_prob"])
def test_spectrograms_are_masked_in_training_alone(masked):
    chances = {"mask_time_prob": 0.0, "mask_feature_prob": 0.0, masked: 0.5}
    model = short_model(whisper=small_whisper(apply_spec_augment=True, **chances))
    samples, lengths = pad(random_clips((16_000, 8_000, 1_000)))
    plain = model(samples, lengths).logits
    model.train()
    assert (model(samples, lengths).logits - plain).abs().max() > 1e-4
    model.encoder.config.apply_spec_augment = False
    torch.testing.assert_close(model(samples, lengths).logits, plain)


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_model_is_the_same_and_holds_the_encoder_alone(kind, tmp_path):
    model = short_model(**KINDS[kind])
    save_model(model, tmp_path / "model")
    files = CheckpointFiles("short", tmp_path / "model")
    assert files.config["model_type"] == "emoser"
    assert files.config["emoser"]["padding"] == "none"
    assert files.config["backbone_config"]["model_type"] == "whisper"
    loaded = load_model(tmp_path / "model")
    assert isinstance(loaded.encoder, ShortWhisperEncoder)
    assert loaded.config == model.config
    assert not [name for name in loaded.state_dict() if "decoder" in name]
    clips = random_clips((9_000, 320))
    torch.testing.assert_close(logits_alone(loaded, clips), logits_alone(model, clips))


def test_the_pipeline_of_transformers_gives_the_same_numbers(tmp_path):
    model = short_model(pooling="statistics", normalization="level")
    save_model(model, tmp_path / "model")
    register()
    assert AutoFeatureExtractor.from_pretrained(tmp_path / "model").do_normalize is False
    pipe = pipeline("audio-classification", str(tmp_path / "model"), dtype=torch.float32)
    [clip] = random_clips([12_345])
    scores = {row["label"]: row["score"] for row in pipe(clip, top_k=None)}
    expected = logits_alone(model, [clip])[0].softmax(dim=0)
    assert [scores[label] for label in LABELS] == pytest.approx(expected.tolist(), abs=1e-6)


def test_weights_in_half_precision_load_in_float32(tmp_path):
    from safetensors.torch import load_file, save_file

    save_model(short_model(), tmp_path / "model")
    file = tmp_path / "model" / "model.safetensors"
    halved = {name: tensor.half() for name, tensor in load_file(file).items()}
    save_file(halved, file, metadata={"format": "pt"})
    model = load_model(tmp_path / "model")
    assert {tensor.dtype for tensor in model.state_dict().values()} == {torch.float32}


def test_the_engine_of_torch_gives_the_numbers_of_the_model(tmp_path):
    model = short_model(pooling="statistics", normalization="level")
    save_model(model, tmp_path / "model")
    source = CheckpointFiles("short", tmp_path / "model")
    clips = random_clips(LENGTHS)
    expected = logits_alone(model, clips).numpy()
    scale = np.abs(expected).max()
    for dtype, tolerance in (("float32", 1e-5), ("bfloat16", 5e-2)):
        opened = open_runtime(source, backend="torch", device="cpu", dtype=dtype)
        logits = opened.runtime.infer(clips).logits
        assert np.abs(logits - expected).max() <= tolerance * max(scale, 1.0)


@pytest.mark.parametrize("backend", ["onnx", "openvino"])
@pytest.mark.parametrize(
    "kind",
    [
        "statistics",
        *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("mean", "attentive")),
        pytest.param("layer sum, raw", marks=pytest.mark.slow),
    ],
)
def test_graphs_take_raw_samples_of_any_length(backend, kind, tmp_path):
    pytest.importorskip("onnx" if backend == "onnx" else "openvino")
    pytest.importorskip("onnxruntime" if backend == "onnx" else "openvino")
    model = short_model(**KINDS[kind])
    save_model(model, tmp_path / "model")
    (tmp_path / "graph").mkdir()
    write_graph(CheckpointFiles("short", tmp_path / "model"), tmp_path / "graph", to=backend)
    opened = open_runtime(
        CheckpointFiles("short", tmp_path / "graph"), backend=backend, device="cpu"
    )
    clips = random_clips((16_000, 1, 320, 48_123, 7_777))
    expected = logits_alone(model, clips).numpy()
    scale = max(float(np.abs(expected).max()), 1.0)
    for clip, logits in zip(clips, expected, strict=True):
        assert np.abs(opened.runtime.infer([clip]).logits[0] - logits).max() <= 1e-4 * scale
    pair = opened.runtime.infer([clips[0], clips[0][::-1].copy()])
    assert np.abs(pair.logits[0] - expected[0]).max() <= 1e-4 * scale


@pytest.mark.slow
def test_int8_keeps_both_products_of_the_spectrogram(tmp_path):
    openvino = pytest.importorskip("openvino")
    save_graph = pytest.importorskip("emoser.runtimes.conversion.openvino").save_graph
    save_graph(build_graph(short_model()), tmp_path / "graph.xml", "short")
    nodes = openvino.Core().read_model(tmp_path / "graph.xml").get_ordered_ops()
    kept = find_kept(nodes)
    products = [node.get_friendly_name() for node in nodes if node.get_type_name() in PRODUCTS]
    assert kept == products[:2]
    assert "conv1" in products[2]


def base_folder(folder, kind):
    """A folder as transformers saves a Whisper of some kind, in half precision."""
    torch.manual_seed(0)
    model = kind(small_whisper(num_labels=3)).half()
    model.save_pretrained(folder)
    WhisperFeatureExtractor().save_pretrained(folder)
    return model.float()


@pytest.mark.parametrize("kind", [WhisperForConditionalGeneration, WhisperForAudioClassification])
def test_a_base_gives_its_first_layers(kind, tmp_path):
    theirs = base_folder(tmp_path, kind)
    encoder = theirs.encoder if hasattr(theirs, "encoder") else theirs.model.encoder
    model = start_model(
        tmp_path, ModelConfig(labels=LABELS), seed=0, num_layers=2, final_norm=False
    ).eval()
    assert (model.config.encoder, model.config.padding) == ("whisper", "none")
    assert (model.config.normalization, model.config.final_norm) == ("none", False)
    assert model.encoder.num_hidden_states == 3
    assert len(model.encoder.backbone.layers) == 2
    assert torch.equal(model.encoder.backbone.conv2.weight, encoder.conv2.weight)
    assert torch.equal(model.encoder.backbone.layers[1].fc2.bias, encoder.layers[1].fc2.bias)
    save_model(model, tmp_path / "saved")
    clips = random_clips([5_000])
    loaded = load_model(tmp_path / "saved")
    torch.testing.assert_close(logits_alone(loaded, clips), logits_alone(model, clips))


def test_tensors_of_no_known_part_are_refused(tmp_path):
    from safetensors.torch import load_file, save_file

    base_folder(tmp_path, WhisperForConditionalGeneration)
    file = tmp_path / "model.safetensors"
    tensors = load_file(file) | {"model.adapter.weight": torch.zeros(2)}
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"model\.adapter\.weight"):
        start_model(tmp_path, ModelConfig(labels=LABELS), seed=0)
    del tensors["model.adapter.weight"], tensors["model.encoder.layers.1.fc1.bias"]
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"layers\.1\.fc1\.bias"):
        start_model(tmp_path, ModelConfig(labels=LABELS), seed=0)


def test_more_layers_than_there_are_is_an_error(tmp_path):
    base_folder(tmp_path, WhisperForConditionalGeneration)
    with pytest.raises(ValueError, match="num_layers is 4, the encoder has 3"):
        start_model(tmp_path, ModelConfig(labels=LABELS), seed=0, num_layers=4)


def test_a_saved_short_whisper_is_a_base_too(tmp_path):
    model = short_model(normalization="level")
    save_model(model, tmp_path / "model")
    again = start_model(tmp_path / "model", ModelConfig(labels=("calm", "sad")), seed=0)
    assert (again.config.padding, again.config.normalization) == ("none", "level")
    for name, tensor in again.encoder.state_dict().items():
        assert torch.equal(tensor, model.encoder.state_dict()[name])


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"padding": "none", "encoder": "hubert"}, "padding 'none' needs the encoder 'whisper'"),
        ({"final_norm": False, "encoder": "whisper"}, "final_norm False needs padding"),
        ({"padding": "reflect"}, "padding is 'reflect', allowed are usual, none"),
    ],
)
def test_contradictory_configurations_are_refused(changes, fault):
    with pytest.raises(ValueError, match=fault):
        ModelConfig(labels=LABELS, **changes)


def test_usual_values_stay_out_of_the_block():
    block = ModelConfig(labels=LABELS).to_block()
    assert not {"padding", "final_norm"} & set(block)
    short = ModelConfig(labels=LABELS, encoder="whisper", padding="none", final_norm=False)
    assert ModelConfig.from_block(short.to_block()) == short


@pytest.fixture(scope="module")
def pretrained():
    default = Path(__file__).resolve().parents[2] / "shared" / "pretrained"
    if not default.is_dir():
        default = Path(__file__).resolve().parents[3] / "shared" / "pretrained"
    folder = Path(os.environ.get("EMOSER_TEST_PRETRAINED", default)) / "whisper-base"
    if not (folder / "config.json").is_file():
        pytest.skip(f"no {folder}; set EMOSER_TEST_PRETRAINED")
    return folder


def test_three_layers_of_whisper_base_are_exact_in_batches(pretrained, tmp_path):
    model = start_model(
        pretrained,
        ModelConfig(labels=LABELS, pooling="statistics", normalization="level"),
        seed=0,
        num_layers=3,
    ).eval()
    assert model.encoder.num_hidden_states == 4
    clips = random_clips((32_000, 1_000, 16_321))
    features, expected = theirs_at_length(model, clips[0])
    with torch.inference_mode():
        ours = model.encoder.contextualize(features, None).frames
        batched = model(*pad(clips)).logits
    scale = float(expected.last_hidden_state.abs().max())
    assert (ours - expected.last_hidden_state).abs().max() <= 1e-5 * scale
    alone = logits_alone(model, clips)
    assert (batched - alone).abs().max() <= 1e-5 * max(float(alone.abs().max()), 1.0)
