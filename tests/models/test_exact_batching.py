"""The output for a recording does not depend on its batch."""

import pytest
import torch
from support.models import (
    base_config,
    large_config,
    loud_model,
    pad,
    random_clips,
    small_config,
)
from transformers import HubertConfig, Wav2Vec2Config, WavLMConfig

from emoser.checkpoints.save import load_model, save_model

MIXED_LENGTHS = (96_000, 16_000, 400, 46_400, 401, 23_456)
CONFIGS = {
    "wav2vec2-base": lambda: base_config(Wav2Vec2Config),
    "hubert-base": lambda: base_config(HubertConfig, 2),
    "wavlm-base": lambda: base_config(WavLMConfig, 2),
    "wav2vec2-large": lambda: large_config(Wav2Vec2Config),
    "hubert-large": lambda: large_config(HubertConfig, 1),
    "wavlm-large": lambda: large_config(WavLMConfig, 1),
}


def logits_alone(model, clips):
    with torch.inference_mode():
        return torch.cat([model(torch.from_numpy(clip)[None]).logits for clip in clips])


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] * (name != "wav2vec2-base")) for name in CONFIGS],
)
def test_a_batch_gives_each_recording_the_numbers_it_gets_alone(name):
    model = loud_model(CONFIGS[name]())
    clips = random_clips(MIXED_LENGTHS)
    alone = logits_alone(model, clips)
    with torch.inference_mode():
        batched = model(*pad(clips)).logits
    assert alone.std(dim=0).max() > 0.05  # the clips do differ
    assert (batched - alone).abs().max() <= 1e-5 * max(alone.abs().max(), 1.0)


@pytest.mark.slow
def test_thirty_seconds_beside_four_hundred_samples():
    model = loud_model(base_config(Wav2Vec2Config, 1))
    clips = random_clips((480_000, 400))
    alone = logits_alone(model, clips)
    with torch.inference_mode():
        batched = model(*pad(clips)).logits
    assert (batched - alone).abs().max() <= 1e-5 * max(alone.abs().max(), 1.0)


def test_what_stands_in_the_padding_does_not_matter():
    model = loud_model(small_config(Wav2Vec2Config))
    batch, lengths = pad(random_clips((8_000, 3_000)))
    garbage = batch.clone()
    garbage[1, 3_000:] = 100.0
    with torch.inference_mode():
        assert torch.equal(model(garbage, lengths).logits, model(batch, lengths).logits)


def test_the_caller_keeps_the_samples_unchanged():
    model = loud_model(small_config())
    batch, lengths = pad(random_clips((8_000, 300)))
    before = batch.clone()
    model(batch, lengths)
    assert torch.equal(batch, before)


@pytest.mark.parametrize("norm", ["group", "layer"])
def test_a_clip_below_the_receptive_field_is_padded_alone_first(norm):
    model = loud_model(small_config(feat_extract_norm=norm))
    clips = random_clips((16_000, 100, 399, 1))
    padded = [
        torch.nn.functional.pad(torch.from_numpy(clip), (0, 400 - len(clip))) for clip in clips[1:]
    ]
    with torch.inference_mode():
        batched = model(*pad(clips)).logits[1:]
        expected = torch.cat([model(clip[None]).logits for clip in padded])
    torch.testing.assert_close(batched, expected, atol=1e-5, rtol=0)


def test_batches_are_exact_in_training_too():
    """With dropout off, gradients of a batch are those of its recordings."""
    config = small_config(
        Wav2Vec2Config,
        hidden_dropout=0.0,
        attention_dropout=0.0,
        activation_dropout=0.0,
        feat_proj_dropout=0.0,
        layerdrop=0.0,
        apply_spec_augment=False,
    )
    model = loud_model(config).train().requires_grad_(True)
    clips = random_clips((9_000, 4_000))
    model(*pad(clips)).logits.square().sum().backward()
    weight = model.encoder.feature_extractor.conv_layers[0].conv.weight
    batched = weight.grad.clone()
    model.zero_grad()
    for clip in clips:
        model(torch.from_numpy(clip)[None]).logits.square().sum().backward()
    torch.testing.assert_close(batched, weight.grad, atol=1e-4 * batched.abs().max(), rtol=0)


@pytest.mark.slow
def test_plain_transformers_moves_the_logits_and_emoser_does_not(tmp_path):
    """The reason for the masked group norm: the same weights through transformers' own class."""
    from transformers import AutoModelForAudioClassification

    model = loud_model(base_config(Wav2Vec2Config))
    save_model(model, tmp_path / "model")
    theirs = AutoModelForAudioClassification.from_pretrained(
        tmp_path / "model", dtype=torch.float32
    ).eval()
    ours = load_model(tmp_path / "model")
    clips = random_clips((96_000, 16_000, 400, 46_400))
    normalized = [
        ours.encoder.normalize(torch.from_numpy(clip)[None], None)[0].numpy() for clip in clips
    ]
    batch, lengths = pad(normalized)
    mask = (torch.arange(batch.shape[1])[None] < lengths[:, None]).long()
    with torch.inference_mode():
        alone = torch.cat([theirs(torch.from_numpy(clip)[None]).logits for clip in normalized])
        plain = (theirs(batch).logits - alone).abs().max(dim=1).values
        masked = (theirs(batch, attention_mask=mask).logits - alone).abs().max(dim=1).values
        exact = (ours(*pad(clips)).logits - alone).abs().max(dim=1).values
    scale = alone.abs().max()
    print(
        f"logit scale {scale:.2f}; moved by: plain {plain.tolist()}, mask {masked.tolist()}, "
        f"emoser {exact.tolist()}"
    )
    assert plain[1:].min() > 0.02 * scale
    assert masked[1:].min() > 0.002 * scale
    assert exact.max() <= 1e-5 * scale
