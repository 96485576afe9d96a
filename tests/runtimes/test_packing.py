"""Recordings that pass through the layers together have the outputs of each alone."""

import numpy as np
import pytest
import torch
from support.models import (
    LABELS,
    base_config,
    loud_model,
    random_clips,
    small_config,
    small_whisper,
)
from transformers import (
    Data2VecAudioConfig,
    HubertConfig,
    UniSpeechConfig,
    Wav2Vec2Config,
    Wav2Vec2ConformerConfig,
    WavLMConfig,
)

from emoser.checkpoints.resolve import find_checkpoint
from emoser.checkpoints.save import build_model
from emoser.models.config import ModelConfig
from emoser.runtimes.opening import open_runtime
from emoser.runtimes.torch.engine import TorchRuntime
from emoser.runtimes.torch.linear import can_pack

LENGTHS = (16_000, 1, 400, 33_000, 21_123, 7_999)
MODELS = {
    "wav2vec2": lambda: loud_model(small_config(Wav2Vec2Config, num_conv_pos_embeddings=16)),
    "base shape": lambda: loud_model(base_config(Wav2Vec2Config, 1)),
    "layer norm first": lambda: loud_model(
        small_config(HubertConfig, do_stable_layer_norm=True, feat_extract_norm="layer")
    ),
    "data2vec": lambda: loud_model(Data2VecAudioConfig(num_hidden_layers=1)),
    "layer sum": lambda: loud_model(small_config(), layer_mix=True, pooling="attentive-statistics"),
    "whisper": lambda: build_whisper(),
    "whisper, layer sum": lambda: build_whisper(layer_mix=True, normalization="level"),
}
OTHERS = {
    "wavlm": small_config(WavLMConfig),
    "unispeech": small_config(UniSpeechConfig),
    "conformer": small_config(Wav2Vec2ConformerConfig, position_embeddings_type="relative"),
    "adapter": small_config(Wav2Vec2Config, add_adapter=True),
}
CPU = torch.device("cpu")
packed = pytest.mark.skipif(not can_pack(torch.float32), reason="needs oneDNN")


def build_whisper(**changes):
    config = ModelConfig(labels=LABELS, encoder="whisper", padding="none", **changes)
    return build_model(small_whisper(), config, seed=0).eval().requires_grad_(False)


@packed
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", MODELS)
def test_a_pack_has_the_outputs_of_its_recordings_alone(name, dtype):
    if not can_pack(dtype):
        pytest.skip("needs bfloat16 arithmetic")
    runtime = TorchRuntime(MODELS[name](), CPU, dtype)
    assert runtime.packs
    clips = random_clips(LENGTHS)
    together = runtime._infer_pack(clips)
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    for clip, output in zip(clips, together, strict=True):
        alone = runtime.infer([clip])
        for found, expected in zip(output, alone, strict=True):
            assert found.shape == expected.shape
            assert np.abs(found - expected).max() <= tolerance * max(1.0, np.abs(expected).max())


@packed
def test_the_order_of_a_pack_does_not_matter():
    runtime = TorchRuntime(MODELS["wav2vec2"](), CPU, torch.float32)
    clips = random_clips(LENGTHS)
    forward, backward = runtime._infer_pack(clips), runtime._infer_pack(clips[::-1])
    for one, other in zip(forward, backward[::-1], strict=True):
        assert np.abs(one.logits - other.logits).max() < 1e-5


@pytest.mark.parametrize("name", OTHERS)
def test_encoders_whose_frames_need_one_another_are_not_packed(name):
    runtime = TorchRuntime(loud_model(OTHERS[name]), CPU, torch.float32)
    assert not runtime.packs
    assert runtime.infer(random_clips([16_000, 9_000])).logits.shape == (2, len(LABELS))


@pytest.mark.parametrize("name", ["emoser-small", "emoser-tiny"])
def test_the_bundled_checkpoints_predict_in_packs_what_they_predict_alone(name, monkeypatch):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        runtime = open_runtime(find_checkpoint(name), device="cpu", backend="torch").runtime
    finally:
        torch.set_num_threads(before)
    if runtime.workers is None or not runtime.packs:
        pytest.skip("this build of torch runs recordings one by one")
    sizes = []
    infer_pack = runtime._infer_pack
    monkeypatch.setattr(runtime, "_infer_pack", lambda p: sizes.append(len(p)) or infer_pack(p))
    clips = random_clips([9_000 + 331 * place for place in range(24)], seed=2)
    together = runtime.infer(clips)
    assert max(sizes) > 2
    assert sum(sizes) == len(clips)
    for place, clip in enumerate(clips):
        alone = runtime.infer([clip])
        assert np.abs(together.logits[place] - alone.logits[0]).max() < 1e-5
        assert np.abs(together.embeddings[place] - alone.embeddings[0]).max() < 1e-5
