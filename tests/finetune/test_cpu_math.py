"""On a processor, training takes other kernels: the same functions, computed sooner."""

from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch
from support.models import LABELS, random_clips, small_config
from torch.nn import functional
from transformers import Wav2Vec2Config

from emoser.checkpoints.save import build_model
from emoser.finetune import FinetuneConfig
from emoser.finetune import cpu_math as shortcuts
from emoser.finetune.cpu_math import FUSED_FRAMES, LEAST_ROWS, attend, drop, multiply, quick_math
from emoser.finetune.data.batches import collate
from emoser.finetune.data.inputs import Batch
from emoser.finetune.training.distributed import ProcessGroup
from emoser.finetune.training.loss import Targets, TrainingLoss
from emoser.finetune.training.optimization import build_optimizer
from emoser.finetune.training.steps import Stepper, set_recompute
from emoser.models.config import ModelConfig

CPU = torch.device("cpu")
CONFIG = FinetuneConfig(
    mode="entire", batch_size=4, schedule="newbob", precision="bfloat16", encoder_learning_rate=1e-5
).for_width(768)
DROPOUTS = ("hidden_dropout", "attention_dropout", "activation_dropout", "feat_proj_dropout")


def heads(dtype=torch.float64, frames=50):
    generator = torch.Generator().manual_seed(0)
    shape = (3, 2, 4, frames, 16)  # query, key, value
    values = torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)
    return [part.clone().requires_grad_() for part in values]


def gradients(function, parts):
    function(*parts).float().square().sum().backward()
    return torch.stack([part.grad for part in parts]).double()


def masks(frames=50):
    valid = torch.arange(frames) < torch.tensor([frames, frames // 2])[:, None]
    valid = valid[:, None, None, :]
    return {
        "none": None,
        "bool": valid,
        "added": torch.zeros(valid.shape).double().masked_fill(~valid, -1e9),
    }


@pytest.mark.parametrize("kind", ["none", "bool", "added"])
def test_attention_in_matrix_products_is_attention(kind):
    mask, parts = masks()[kind], heads()
    ours = attend(*parts, mask, chance=0.0, scale=0.25)
    assert torch.allclose(
        ours, functional.scaled_dot_product_attention(*parts, attn_mask=mask), atol=1e-12
    )


def test_its_gradients_are_about_as_exact_as_those_of_torch():
    exact = gradients(functional.scaled_dot_product_attention, heads())

    def error(function):
        found = gradients(function, heads(torch.bfloat16))
        return float((found - exact).norm() / exact.norm())

    ours = error(lambda *parts: attend(*parts, None, chance=0.0, scale=0.25))
    assert ours < 1.5 * error(functional.scaled_dot_product_attention)
    assert ours < 2e-2


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("chance", [0.1, 0.5])
def test_so_many_values_are_dropped_as_were_asked_for(chance, dtype):
    torch.manual_seed(0)
    values = torch.ones(999, 1001, dtype=dtype, requires_grad=True)
    kept = drop(values, chance)
    share = float((kept == 0).double().mean())
    assert share == pytest.approx(chance, abs=5 * (chance * (1 - chance) / kept.numel()) ** 0.5)
    assert float(kept.detach().max()) == pytest.approx(1 / (1 - chance), rel=5e-3)
    kept.sum().backward()
    assert torch.equal(values.grad, kept)


def test_neighbours_are_dropped_independently():
    torch.manual_seed(0)
    zeros = (drop(torch.ones(1_000_000), 0.3) == 0).double()
    for distance in (1, 2, 3, 4, 5, 1000):  # four draws come from one number
        together = float((zeros[distance:] * zeros[:-distance]).mean())
        assert together == pytest.approx(0.09, abs=2e-3)


def test_the_seed_determines_what_is_dropped():
    torch.manual_seed(1)
    first = drop(torch.ones(100), 0.5)
    assert not torch.equal(drop(torch.ones(100), 0.5), first)
    torch.manual_seed(1)
    assert torch.equal(drop(torch.ones(100), 0.5), first)


@pytest.mark.parametrize("biased", [True, False], ids=["bias", "no-bias"])
@pytest.mark.parametrize("shape", [(1000,), (4, 199), (LEAST_ROWS,)], ids=str)
def test_products_and_their_gradients_are_those_of_torch(shape, biased):
    torch.manual_seed(0)
    frames, weight, bias = torch.randn(*shape, 48), torch.randn(80, 48), torch.randn(80)
    direction = torch.randn(*shape, 80)

    def run(function, dtype):
        parts = [item.to(dtype, copy=True).requires_grad_() for item in (frames, weight, bias)]
        product = function(*parts[: 2 + biased])
        (product * direction.to(dtype)).sum().backward()
        return [product.detach(), *(part.grad for part in parts[: 2 + biased])]

    for found, exact in zip(
        run(multiply, torch.float32), run(functional.linear, torch.float64), strict=True
    ):
        assert found.shape == exact.shape
        assert float((found - exact).norm() / exact.norm()) < 1e-6


def test_a_product_can_be_changed_in_place_as_transformers_does():
    weight = torch.randn(8, 4, requires_grad=True)
    product = multiply(torch.randn(2, 99, 4), weight)
    product[:, 50:] = 0.0
    product.sum().backward()
    assert torch.isfinite(weight.grad).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_convolutions_of_positions_are_those_of_torch(dtype):
    torch.manual_seed(0)
    layer = torch.nn.Conv1d(32, 32, 16, padding=8, groups=4)
    frames = torch.randn(2, 50, 32)

    def run(block, autocast):
        layer.zero_grad()
        values = frames.clone().requires_grad_()
        with block, torch.autocast("cpu", dtype, enabled=autocast):
            output = layer(values.transpose(1, 2)).float()
        output.square().sum().backward()
        return output.detach(), values.grad, layer.weight.grad.clone(), layer.bias.grad.clone()

    half = dtype != torch.float32
    for found, expected in zip(run(quick_math(CPU), half), run(nullcontext(), False), strict=True):
        difference = float((found - expected).norm() / expected.norm())
        assert difference < (2e-2 if half else 1e-6)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_the_rest_computes_as_ever(device, monkeypatch):
    for name in ("drop", "attend", "multiply"):
        monkeypatch.setattr(shortcuts, name, None)
    monkeypatch.setattr(shortcuts, "multiplies_faster", lambda: True)
    torch.manual_seed(0)
    expected = functional.dropout(torch.ones(100))
    torch.manual_seed(0)
    with quick_math(torch.device(device), recompute=device == "cpu"):
        assert torch.equal(functional.dropout(torch.ones(100)), expected)
        functional.scaled_dot_product_attention(*heads(torch.bfloat16))
        functional.linear(torch.ones(1000, 8), torch.ones(8, 8))


@pytest.mark.parametrize(
    ("rows", "dtype"),
    [(LEAST_ROWS - 1, torch.float32), (1000, torch.float64), (1000, torch.bfloat16)],
    ids=["few rows", "double", "half"],
)
def test_other_products_are_left_to_torch(rows, dtype, monkeypatch):
    monkeypatch.setattr(shortcuts, "multiply", None)
    monkeypatch.setattr(shortcuts, "multiplies_faster", lambda: True)
    frames, weight = torch.randn(rows, 8).to(dtype), torch.randn(8, 8).to(dtype)
    expected = functional.linear(frames, weight)
    with quick_math(CPU):
        assert torch.equal(functional.linear(frames, weight), expected)


@pytest.mark.parametrize(
    ("changes", "frames"),
    [({}, FUSED_FRAMES), ({"is_causal": True}, 50)],
    ids=["long", "causal"],
)
def test_what_is_not_faster_is_left_to_torch(changes, frames, monkeypatch):
    monkeypatch.setattr(shortcuts, "attend", None)
    parts = heads(torch.bfloat16, frames)
    expected = functional.scaled_dot_product_attention(*parts, **changes)
    with quick_math(CPU):
        found = functional.scaled_dot_product_attention(*parts, **changes)
    assert torch.equal(found, expected)


def test_nothing_is_dropped_where_nothing_is_learned():
    values = torch.ones(100)
    with quick_math(CPU):
        assert functional.dropout(values, 0.5, training=False) is values
        assert torch.equal(functional.dropout(values, 0.0), values)
        assert not functional.dropout(values, 1.0).any()


def build_stepper(config, chance):
    encoder = small_config(
        Wav2Vec2Config, layerdrop=0.0, mask_time_prob=0.0, **dict.fromkeys(DROPOUTS, chance)
    )
    model = build_model(encoder, ModelConfig(labels=LABELS), seed=0)
    loss = TrainingLoss(config.optimisation, size=model.encoder.hidden_size)
    set_recompute(model, active=config.run.recompute)
    return Stepper(
        model=model,
        loss=loss,
        optimizer=build_optimizer(model, loss, config),
        config=config,
        processes=ProcessGroup("cpu"),
        num_steps=10,
    )


class Clips:
    """Four clips of many lengths."""

    num_samples = (4000, 6000, 9000, 5000)

    def load(self, indices, generator=None):
        clips = random_clips(self.num_samples)
        return Batch("waveforms", *collate([clips[index] for index in indices]))


ALLOWED = torch.ones(4, len(LABELS), dtype=torch.bool)
TARGETS = Targets(torch.arange(4), ALLOWED, *[torch.zeros(4, 0)] * 3)


def learn(config, chance, steps=3):
    stepper = build_stepper(config, chance)
    return [stepper.update(range(4), Clips(), TARGETS, step).loss for step in range(steps)]


def test_half_precision_learns_what_float32_learns():
    exact = learn(replace(CONFIG, precision="float32"), 0.0)
    assert learn(CONFIG, 0.0) == pytest.approx(exact, rel=1e-2)


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_training_takes_the_quick_way(precision, monkeypatch):
    calls = dict.fromkeys(("drop", "attend", "multiply"), 0)

    def spy(name, function):
        def counted(*args, **kwargs):
            calls[name] += 1
            return function(*args, **kwargs)

        return counted

    for name in calls:
        monkeypatch.setattr(shortcuts, name, spy(name, getattr(shortcuts, name)))
    monkeypatch.setattr(shortcuts, "LEAST_ROWS", 1)
    monkeypatch.setattr(shortcuts, "multiplies_faster", lambda: True)
    assert np.isfinite(learn(replace(CONFIG, precision=precision), 0.2, steps=1)).all()
    assert calls["drop"] > 0
    assert calls["attend"] > 0
    assert (calls["multiply"] > 0) == (precision == "float32")


def test_the_quick_way_learns_what_torch_learns(monkeypatch):
    monkeypatch.setattr(shortcuts, "LEAST_ROWS", 1)
    monkeypatch.setattr(shortcuts, "multiplies_faster", lambda: True)
    config = replace(CONFIG, precision="float32")
    quick = learn(config, 0.0)
    monkeypatch.setattr("emoser.finetune.training.steps.quick_math", lambda *_, **__: nullcontext())
    assert quick == pytest.approx(learn(config, 0.0), rel=1e-5)


def test_half_precision_can_be_recomputed():
    exact = learn(replace(CONFIG, recompute=True, precision="float32"), 0.3)
    assert learn(replace(CONFIG, recompute=True), 0.3) == pytest.approx(exact, rel=1e-2)
