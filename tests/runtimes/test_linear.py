"""Linear layers laid out for the processor give the numbers of transformers' own."""

import pickle

import pytest
import torch
from support.models import (
    base_config,
    large_config,
    loud_model,
    random_clips,
    small_config,
    small_whisper,
)
from torch import nn
from transformers import Data2VecAudioConfig, HubertConfig, Wav2Vec2Config, WavLMConfig

from emoser.runtimes.conversion.graph import (
    NUM_PARTS,
    GraphAttention,
    GraphConvolutions,
    RoundedLayer,
    build_graph,
    replace_attention,
    replace_convolutions,
    round_up,
)
from emoser.runtimes.torch import transformer
from emoser.runtimes.torch.linear import PackedLinear, can_pack, is_exact_gelu, pack_linear
from emoser.runtimes.torch.transformer import (
    InPlaceGelu,
    JointAttention,
    attend,
    is_stock_attention,
    optimize_transformer,
)

CONFIGS = {
    "wav2vec2": small_config(Wav2Vec2Config),
    "hubert": large_config(HubertConfig, 1),
    "data2vec": Data2VecAudioConfig(num_hidden_layers=1),
}
needs_bfloat16 = pytest.mark.skipif(
    not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="no bfloat16 arithmetic here"
)

needs_packing = pytest.mark.skipif(not can_pack(torch.float32), reason="no oneDNN beside MKL here")


def run(backbone, frames, mask=None):
    with torch.inference_mode():
        return backbone.encoder(frames, attention_mask=mask).last_hidden_state


@pytest.mark.parametrize("packing", [True, False], ids=["packed", "plain"])
@pytest.mark.parametrize("name", CONFIGS)
def test_a_optimized_transformer_gives_the_frames_of_transformers(name, packing, monkeypatch):
    if not packing:
        monkeypatch.setattr("emoser.runtimes.torch.linear.can_pack", lambda dtype: False)
    backbone = loud_model(CONFIGS[name]).encoder.backbone
    size = CONFIGS[name].hidden_size
    frames = torch.randn(2, 37, size, generator=torch.Generator().manual_seed(0))
    mask = torch.ones(2, 37, dtype=torch.long)
    mask[1, 20:] = 0
    before = [run(backbone, frames.clone()), run(backbone, frames.clone(), mask)]
    optimize_transformer(backbone)
    kinds = {type(part) for part in backbone.modules()}
    packed = packing and can_pack(torch.float32)
    assert {JointAttention, PackedLinear if packed else InPlaceGelu} <= kinds
    after = [run(backbone, frames.clone()), run(backbone, frames.clone(), mask)]
    for one, other in zip(after, before, strict=True):
        assert (one - other).abs().max() <= 2e-5 * other.abs().max()


@pytest.mark.parametrize("scores", [1, 3_000, transformer.SCORES])
@pytest.mark.parametrize("num_frames", [1, 31, 64, 77])
def test_attention_as_products_is_that_of_torch(num_frames, scores, monkeypatch):
    monkeypatch.setattr(transformer, "SCORES", scores)
    joint = torch.randn(2, num_frames, 3 * 24, generator=torch.Generator().manual_seed(0)).double()
    query, key, value = joint.unflatten(-1, (3, 4, 6)).permute(2, 0, 3, 1, 4)
    expected = nn.functional.scaled_dot_product_attention(query, key, value, scale=0.3)
    kept = joint.clone()
    found = attend(joint, 4, 0.3)
    assert torch.equal(joint, kept)
    assert (found - expected.transpose(1, 2).flatten(2)).abs().max() <= 1e-12


@needs_bfloat16
@pytest.mark.parametrize("flags", [frozenset(), frozenset({"amx_bf16"})], ids=["vector", "matrix"])
def test_attention_in_bfloat16_is_that_of_transformers(flags, monkeypatch):
    monkeypatch.setattr(transformer, "read_processor", lambda: ("a processor", flags))
    backbone = loud_model(base_config(Wav2Vec2Config, 1)).encoder.backbone
    frames = torch.randn(1, 70, 768, generator=torch.Generator().manual_seed(0))
    expected = run(backbone, frames.clone())
    plain = run(backbone.bfloat16(), frames.bfloat16())
    optimize_transformer(backbone)
    assert backbone.encoder.layers[0].attention.multiplies is (not flags)
    found = run(backbone, frames.bfloat16())
    assert (found - expected).square().mean() <= 1.1 * (plain - expected).square().mean()


def test_attention_of_another_kind_is_left_alone():
    backbone = loud_model(small_config(WavLMConfig)).encoder.backbone
    before = [type(part) for part in backbone.modules() if "Attention" in type(part).__name__]
    optimize_transformer(backbone)
    assert [type(p) for p in backbone.modules() if "Attention" in type(p).__name__] == before
    assert not is_stock_attention(nn.Linear(2, 2))


@pytest.mark.parametrize(
    ("activation", "exact"),
    [(nn.GELU(), True), (nn.GELU(approximate="tanh"), False), (nn.ReLU(), False)],
)
def test_only_the_exact_gelu_is_overwritten(activation, exact):
    assert is_exact_gelu(activation) is exact


@pytest.mark.parametrize(
    ("dtype", "rounding"),
    [
        pytest.param(torch.bfloat16, 2**-8, marks=needs_bfloat16),
        pytest.param(torch.float32, 2**-20, marks=needs_packing),
    ],
    ids=["bfloat16", "float32"],
)
def test_a_packed_layer_is_the_product_rounded_once_and_survives_pickling(dtype, rounding):
    generator = torch.Generator().manual_seed(0)
    weight = (torch.randn(48, 32, generator=generator) / 6).to(dtype)
    bias = torch.randn(48, generator=generator).to(dtype)
    frames = torch.randn(1, 11, 32, generator=generator).to(dtype)
    layer = pack_linear(weight, bias)
    assert isinstance(layer, PackedLinear)
    plain = frames.double() @ weight.double().t() + bias.double()
    for activation in ("none", "relu", "gelu"):
        layer.activation = activation
        expected = plain if activation == "none" else getattr(nn.functional, activation)(plain)
        for one in (layer, pickle.loads(pickle.dumps(layer))):
            assert (one(frames).double() - expected).abs().max() <= rounding * plain.abs().max()


def test_where_onednn_is_not_the_quickest_a_layer_stays_what_it_was(monkeypatch):
    monkeypatch.setattr("emoser.runtimes.torch.linear.can_pack", lambda dtype: False)
    weight = torch.randn(3, 2)
    layer = pack_linear(weight, None)
    assert type(layer) is nn.Linear
    assert layer.bias is None
    assert layer.weight.data_ptr() == weight.data_ptr()


@pytest.mark.parametrize("doubles", [False, True])
@pytest.mark.parametrize("num_parts", [1, 2, NUM_PARTS, 5])
@pytest.mark.parametrize("name", ["group", "layer", "odd"])
def test_the_graph_gives_the_features_of_transformers_in_any_number_of_parts(
    name, num_parts, doubles
):
    odd = {"conv_kernel": (10, 7, 4, 3, 2, 2, 1), "conv_stride": (5, 2, 2, 3, 2, 2, 1)}
    config = {
        "group": base_config(Wav2Vec2Config, 1),
        "layer": large_config(HubertConfig, 1),
        "odd": small_config(Wav2Vec2Config, **odd),
    }[name]
    model = loud_model(config)
    extractor = model.encoder.feature_extractor
    for length in (model.encoder.min_samples, 2_401, 16_789):
        batch = torch.from_numpy(random_clips([length])[0])[None].repeat(2, 1)
        batch[1] *= -0.3
        with torch.inference_mode():
            expected = extractor(batch)
            found = GraphConvolutions(extractor, num_parts=num_parts, doubles=doubles)(batch)
        assert found.shape == expected.shape
        assert (found - expected).abs().max() <= 2e-5 * expected.abs().max()


@pytest.mark.parametrize("kind", [Wav2Vec2Config, HubertConfig])
def test_split_attention_gives_the_frames_of_transformers(kind):
    backbone = loud_model(base_config(kind, 1)).encoder.backbone
    attention = backbone.encoder.layers[0].attention
    split = GraphAttention(attention)
    for num_frames in (1, 2, NUM_PARTS, 50, 151):
        frames = torch.randn(2, num_frames, 768, generator=torch.Generator().manual_seed(1))
        with torch.inference_mode():
            expected, found = attention(frames)[0], split(frames)[0]
        assert found.shape == expected.shape
        assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()
    replace_attention(backbone)
    assert isinstance(backbone.encoder.layers[0].attention, GraphAttention)


ROUNDED = {
    "group norm": small_config(Wav2Vec2Config),
    "layer norm": small_config(feat_extract_norm="layer", do_stable_layer_norm=True),
    "wide": base_config(HubertConfig, 1),
    "data2vec": small_config(Data2VecAudioConfig),
    "layer sum": small_config(Wav2Vec2Config),
    "whisper": small_whisper(),
}


@pytest.mark.parametrize("name", ROUNDED)
def test_rounded_numbers_of_frames_keep_the_numbers_of_the_model(name):
    changes = {
        "layer sum": {"layer_mix": True},
        "whisper": {"encoder": "whisper", "padding": "none", "normalization": "none"},
    }
    model = loud_model(ROUNDED[name], **changes.get(name, {}))
    graph = build_graph(model, row_step=4)
    layers = model.encoder.parts().layers
    seen = set()
    for part in graph.modules():
        if isinstance(part, RoundedLayer):
            norm = part.final_layer_norm
            norm.register_forward_pre_hook(lambda _, given: seen.add(given[0].shape[1]))
    for length in (1, 401, 1_041, 5_000, 24_001):
        batch = torch.from_numpy(random_clips([length])[0])[None].repeat(2, 1)
        with torch.inference_mode():
            for found, expected in zip(graph(batch), model(batch), strict=True):
                assert (found - expected).abs().max() <= 2e-5 * expected.abs().max()
    assert sum(isinstance(part, RoundedLayer) for part in graph.modules()) == len(layers)
    assert len(seen) > 1
    assert {size % 4 for size in seen} == {0}


def test_layers_with_another_attention_are_not_rounded():
    graph = build_graph(loud_model(small_config(WavLMConfig)), row_step=4)
    assert graph.row_step == 1
    assert not any(isinstance(part, RoundedLayer) for part in graph.modules())


@pytest.mark.parametrize("step", [1, 4, 32])
def test_rounding_up_takes_few_sizes_and_little_more(step):
    sizes = {length: round_up(length, step) for length in range(1, 1_501)}
    assert all(length <= size <= length + max(step, length / 8) for length, size in sizes.items())
    assert step < 32 or len(set(sizes.values())) <= 32


def test_wide_encoders_pass_in_parts_and_small_ones_whole():
    for config, parts in ((base_config(Wav2Vec2Config, 1), NUM_PARTS), (small_config(), 1)):
        graph = build_graph(loud_model(config))
        assert graph.model.encoder.feature_extractor.num_parts == parts
    holder = nn.Module()
    holder.feature_extractor = nn.Linear(2, 2)
    replace_convolutions(holder, doubles=False)
    assert type(holder.feature_extractor) is nn.Linear
