"""The torch engine is fast without other numbers, other answers or other threads than before."""

import copy
import pickle
import threading

import numpy as np
import pytest
import torch
from support.models import LABELS, base_config, large_config, loud_model, random_clips, small_config
from torch import nn
from transformers import (
    Data2VecAudioConfig,
    HubertConfig,
    Wav2Vec2Config,
    Wav2Vec2ConformerConfig,
    WavLMConfig,
)

from emoser import EmotionClassifier
from emoser.checkpoints.save import save_model
from emoser.runtimes.parallel import GROUP_ROUNDS, WorkerThreads
from emoser.runtimes.torch import engine as torch_runtime
from emoser.runtimes.torch.convolutions import (
    FastConvolutions,
    GroupedConvolution,
    PackedConvolution,
    are_stock,
    optimize_convolutions,
    pack_convolutions,
)
from emoser.runtimes.torch.engine import TorchRuntime
from emoser.runtimes.torch.linear import can_pack
from emoser.runtimes.torch.threads import can_work_alone, work_alone

RATE = 16_000
LENGTHS = (64_000, 400, 41_360, 41_361, 16_789)
"""41,360 samples are twice the 64 frames that pass through the layers together, and one more."""
CONFIGS = {
    "group": base_config(Wav2Vec2Config, 1),
    "layer": large_config(HubertConfig, 1),
    "odd": small_config(
        Wav2Vec2Config, conv_kernel=(10, 7, 4, 3, 2, 2, 1), conv_stride=(5, 2, 2, 3, 2, 2, 1)
    ),
    "bias": small_config(WavLMConfig, conv_bias=True),
    "tanh": small_config(HubertConfig, feat_extract_activation="tanh"),
    "data2vec": Data2VecAudioConfig(num_hidden_layers=1),
    "conformer": small_config(
        Wav2Vec2ConformerConfig,
        position_embeddings_type="relative",
        feat_extract_norm="layer",
    ),
}


def on_cpu(model, dtype=torch.float32):
    return TorchRuntime(model, torch.device("cpu"), dtype)


@pytest.mark.parametrize("packing", [True, False], ids=["packed", "plain"])
@pytest.mark.parametrize("name", CONFIGS)
def test_fast_convolutions_are_as_near_to_float64_as_transformers_is(name, packing):
    """Rounding differs by processor, so transformers' own error is the measure of ours.

    oneDNN's packed products add up in one chain where others add blocks; on a processor with
    AVX-512 that makes three times the error, 1.6e-6 of the largest output.
    """
    extractor = loud_model(CONFIGS[name]).encoder.feature_extractor
    batch = torch.from_numpy(np.stack(random_clips([41_361, 41_361], seed=3)))
    with torch.inference_mode():
        exact = copy.deepcopy(extractor).double()(batch.double())
        expected = extractor(batch)
        quick = FastConvolutions(extractor)
        if packing:
            quick.pack()
        found = quick(batch)
    assert found.shape == expected.shape
    assert (expected - exact).abs().max() <= 1e-5 * exact.abs().max()
    assert (found - exact).abs().max() <= 4 * (expected - exact).abs().max()


@pytest.mark.parametrize("name", CONFIGS)
def test_the_engine_gives_the_logits_of_the_model(name):
    clips = random_clips(LENGTHS)
    model = loud_model(CONFIGS[name])
    with torch.inference_mode():
        outputs = [model(torch.from_numpy(clip)[None]) for clip in clips]
    expected = torch.cat([output.logits for output in outputs]).numpy()
    answer = on_cpu(model).infer(clips)
    assert isinstance(model.encoder.feature_extractor, FastConvolutions)
    np.testing.assert_allclose(answer.logits, expected, atol=2e-5 * np.abs(expected).max())


@pytest.mark.parametrize("offset", [0.0, 0.5], ids=["centred", "offset"])
@pytest.mark.parametrize("level", [1e-6, 1.0, 1e3])
def test_the_folded_group_norm_is_exact_for_any_loudness(offset, level):
    """Without input normalisation, where a mean far from zero cancels badly in float32."""
    extractor = loud_model(small_config(Wav2Vec2Config)).encoder.feature_extractor
    clip = torch.from_numpy(random_clips([20_000])[0] + np.float32(offset))[None] * level
    with torch.inference_mode():
        expected = extractor.double()(clip.double())
        found = FastConvolutions(extractor.float())(clip)
    assert (found - expected).abs().max() <= 2e-4 * expected.abs().max()


def test_digital_silence_stays_finite():
    answer = on_cpu(loud_model(CONFIGS["group"])).infer([np.zeros(RATE, np.float32)])
    assert np.isfinite(answer.logits).all()


def test_convolutions_that_are_not_stock_are_left_alone():
    extractor = loud_model(small_config()).encoder.feature_extractor
    extractor.conv_layers[2].conv = torch.nn.Conv1d(32, 32, 3, stride=2, padding=1)
    assert not are_stock(extractor)
    assert not are_stock(torch.nn.Linear(2, 2))
    holder = torch.nn.Module()
    holder.feature_extractor = extractor
    optimize_convolutions(holder)
    assert holder.feature_extractor is extractor


def test_padded_batches_still_equal_each_alone():
    runtime = on_cpu(loud_model(CONFIGS["group"]))
    clips = random_clips(LENGTHS)
    together, alone = runtime.infer_padded(clips), runtime.infer(clips)
    np.testing.assert_allclose(together.logits, alone.logits, atol=1e-4)


def test_side_by_side_is_the_same_as_one_after_another():
    runtime = on_cpu(loud_model(small_config()))
    clips = random_clips([16_000, 400, 64_000, 8_000] * 4)
    together = runtime.infer(clips)
    alone = np.concatenate([runtime.infer([clip]).logits for clip in clips])
    np.testing.assert_allclose(together.logits, alone, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_model_stays_as_large_as_it_was_when_its_weights_are_laid_out(dtype, monkeypatch):
    """A large model hears a single recording on all threads; laid out weights are no parameters."""
    model = loud_model(small_config())
    count = sum(item.numel() for item in model.parameters())
    monkeypatch.setattr(torch_runtime, "SMALL_MODEL", count)
    assert not TorchRuntime(model, torch.device("cpu"), dtype).small


def test_saving_writes_what_was_loaded(tmp_path):
    save_model(loud_model(small_config()), tmp_path / "one")
    classifier = EmotionClassifier.from_pretrained(tmp_path / "one", backend="torch")
    classifier.save_pretrained(tmp_path / "two")
    one, two = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "two"))
    assert one == two
    assert classifier.labels == LABELS


@pytest.fixture
def two_threads():
    """torch as if it had two cores, whatever the machine and its settings are."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
def test_workers_compute_on_one_core_and_nobody_else_notices():
    if not can_work_alone():
        pytest.skip("this build of torch has no OpenMP that can be asked")
    counts = []
    list(
        WorkerThreads(2, work_alone).map(lambda _: counts.append(torch.get_num_threads()), range(8))
    )
    other = threading.Thread(target=lambda: counts.append(torch.get_num_threads()))
    other.start()
    other.join()
    assert counts == [1] * 8 + [2]
    assert torch.get_num_threads() == 2


@pytest.mark.usefixtures("two_threads")
def test_a_group_runs_on_the_threads_that_torch_had_when_the_model_was_opened():
    if not can_work_alone():
        pytest.skip("this build of torch has no OpenMP that can be asked")
    runtime = on_cpu(loud_model(small_config()))
    assert runtime.group_size == 2 * GROUP_ROUNDS
    runtime.infer(random_clips([16_000] * 8))
    assert torch.get_num_threads() == 2
    torch.set_num_threads(1)
    assert on_cpu(loud_model(small_config())).group_size == 1


def test_worker_threads_can_be_sent_to_another_process():
    assert pickle.loads(pickle.dumps(WorkerThreads(3, work_alone))).num_threads == 3


def test_a_thread_that_has_one_core_already_is_alone():
    workers = WorkerThreads(1, work_alone)
    assert list(workers.map(lambda _: work_alone(), [0])) == [can_work_alone()]


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_batches_on_a_gpu_are_those_of_the_cpu(dtype):
    clips = random_clips(LENGTHS)
    expected = on_cpu(loud_model(base_config(Wav2Vec2Config, 2))).infer(clips).logits
    runtime = TorchRuntime(loud_model(base_config(Wav2Vec2Config, 2)), torch.device("cuda"), dtype)
    found = runtime.infer(clips).logits
    scale = np.abs(expected).max()
    bound = 1e-3 if dtype is torch.float32 else 0.1
    assert np.abs(found - expected).max() <= bound * scale


@pytest.mark.parametrize("length", [5, 128, 131, 300])
@pytest.mark.parametrize(
    ("dtype", "rounding"), [(torch.float32, 2e-6), (torch.bfloat16, 2e-2)], ids=["f32", "bf16"]
)
def test_packed_convolutions_are_those_of_torch_and_survive_pickling(dtype, rounding, length):
    if not can_pack(dtype):
        pytest.skip("no oneDNN for this precision here")
    generator = torch.Generator().manual_seed(0)
    holder = nn.Module()
    holder.plain = nn.Conv1d(6, 32, 3, stride=2, padding=1)
    holder.grouped = nn.Conv1d(32, 32, 8, padding=4, groups=2, bias=False)
    holder.depthwise = nn.Conv1d(8, 8, 3, groups=8)
    stock = copy.deepcopy(holder).to(dtype).requires_grad_(False)
    holder.to(dtype).requires_grad_(False)
    pack_convolutions(holder)
    grouped = GroupedConvolution if dtype == torch.bfloat16 else nn.Conv1d
    assert isinstance(holder.plain, PackedConvolution)
    assert type(holder.grouped) is grouped
    assert type(holder.depthwise) is nn.Conv1d
    for name in ("plain", "grouped"):
        module = getattr(stock, name)
        inputs = torch.randn(2, module.in_channels, length, generator=generator).to(dtype)
        expected = module.double()(inputs.double())
        for packed in (getattr(holder, name), pickle.loads(pickle.dumps(getattr(holder, name)))):
            with torch.inference_mode():
                found = packed(inputs)
            assert found.shape == expected.shape
            assert (found.double() - expected).abs().max() <= rounding * expected.abs().max()
