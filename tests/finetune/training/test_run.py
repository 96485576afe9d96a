"""A training run: kept features, parts of a batch, several processes, and saved states."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from support.models import LABELS, random_clips, small_config
from support.training import CONFIG, STILL, small_model
from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2Model

from emoser import EmotionClassifier
from emoser.checkpoints.save import load_model
from emoser.errors import CheckpointError, DependencyError, DeviceError
from emoser.finetune import Utterance, train
from emoser.finetune.config import Augmentation
from emoser.finetune.data.inputs import (
    PooledLayers,
    StoredFeatures,
    choose_form,
    limit_clips,
    pool_windows,
    run_model,
    vary_clip,
)
from emoser.finetune.data.recordings import Recordings, Windows
from emoser.finetune.training import run as engine
from emoser.finetune.training.freezing import freeze
from emoser.finetune.training.optimization import build_optimizer
from emoser.finetune.training.steps import LossModule, Stepper
from emoser.finetune.training.tensorboard import write_events


def write_clips(folder, lengths):
    utterances = []
    for index, clip in enumerate(random_clips(lengths)):
        path = folder / f"{index}.wav"
        soundfile.write(path, clip, 16_000)
        speaker = "b" if index % 3 == 2 else "a"
        utterances.append(Utterance(str(path), LABELS[index % 4], speaker=speaker))
    return utterances


def test_the_gradient_of_the_waveform_is_left_out_and_all_others_stay():
    gradients, asked = [], []
    for recompute in (True, False):  # with and without the gradient that transformers asks for
        model = small_model(dropout=False)
        freeze(model, replace(CONFIG, mode="entire", recompute=recompute))
        first = model.encoder.feature_extractor.conv_layers[0].conv
        first.register_forward_pre_hook(lambda _, inputs: asked.append(inputs[0].requires_grad))
        model.train()
        model(torch.from_numpy(np.stack(random_clips([8_000, 8_000])))).logits.sum().backward()
        gradients.append([item.grad for item in model.parameters() if item.grad is not None])
    assert asked == [True, False]
    for theirs, ours in zip(*gradients, strict=True):
        assert torch.equal(theirs, ours)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Clips of many lengths, one shorter than the receptive field."""
    generator = np.random.default_rng(0)
    lengths = [300, *generator.integers(3_000, 12_000, 23).tolist()]
    return write_clips(tmp_path_factory.mktemp("clips"), lengths)


@pytest.fixture(scope="module")
def sides(clips):
    return [item for item in clips if item.speaker == "a"], [
        item for item in clips if item.speaker == "b"
    ]


def equal_weights(first, second, tolerance=0.0):
    other = second.state_dict()
    return all(
        torch.allclose(tensor, other[name], rtol=0, atol=tolerance)
        for name, tensor in first.state_dict().items()
    )


@pytest.mark.parametrize(("selection", "epoch"), [("uar", 1), ("accuracy", 1), ("last", 2)])
def test_of_equal_epochs_the_first_is_kept_unless_the_last_is_asked_for(
    selection, epoch, sides, tmp_path
):
    still = replace(CONFIG, encoder_learning_rate=0.0, head_learning_rate=0.0, selection=selection)
    result = train(*sides, model=small_model(), config=still, output=tmp_path, device="cpu")
    assert result.best_epoch == epoch


def test_trained_weights_have_not_the_mean_logits_of_those_before(sides, tmp_path):
    model = small_model()
    model.config = replace(model.config, mean_logits=(1.0,) * 4, adapted_recordings=9)
    train(*sides, model=model, config=CONFIG, output=tmp_path, device="cpu")
    saved = load_model(tmp_path / "best").config
    assert (saved.mean_logits, saved.adapted_recordings) == ((), 0)


def test_a_classifier_that_was_adapted_to_a_speaker_is_saved_before_it_is_trained(sides, tmp_path):
    clips = random_clips([8_000] * 9)
    adapted = EmotionClassifier.from_pretrained("emoser-tiny", device="cpu", backend="torch").adapt(
        clips, sampling_rate=16_000
    )
    with pytest.raises(ValueError, match=r"adapted to 9 recordings of a speaker.*save_pretrained"):
        train(*sides, model=adapted, config=CONFIG, output=tmp_path)


@pytest.mark.parametrize("norm", ["group", "layer"])
@pytest.mark.parametrize("layer_mix", [False, True], ids=["last layer", "all layers"])
def test_pooled_layers_are_all_that_a_frozen_head_needs(norm, layer_mix, clips):
    stable = norm == "layer"
    model = small_model(layer_mix=layer_mix, feat_extract_norm=norm, do_stable_layer_norm=stable)
    freeze(model, replace(CONFIG, mode="frozen"))
    model.eval()
    recordings = Recordings(clips)
    pooled = PooledLayers(model, recordings)
    with torch.inference_mode():
        for index in range(len(clips)):
            samples = torch.from_numpy(recordings[index])[None]
            kept = run_model(model, pooled.load([index])).logits
            assert torch.allclose(kept, model(samples).logits, atol=1e-5)


COPIED = replace(CONFIG, mode="frozen", augmentation=Augmentation(), frozen_copies=2)


def test_varied_copies_of_a_frozen_encoder_are_those_of_the_seed_copy_and_clip(clips):
    model, windows = small_model().eval(), Windows(Recordings(clips), None)
    copies = [pool_windows(model, windows, COPIED, copy=copy) for copy in range(3)]
    assert not any(torch.allclose(copies[0], other, atol=1e-3) for other in copies[1:])
    assert not torch.allclose(copies[1], copies[2], atol=1e-3)
    generator = np.random.default_rng([COPIED.run.seed, 2, 5])
    longest = limit_clips(windows, COPIED)
    varied = torch.from_numpy(
        vary_clip(windows[5], COPIED, generator, longest=longest, sampling_rate=16_000)
    )[None]
    with torch.inference_mode():
        assert torch.allclose(copies[2][5, 0], model(varied).embedding[0], atol=1e-5)


def test_a_kill_while_the_last_line_of_the_log_is_written_loses_none(sides, tmp_path, monkeypatch):
    written = engine.write_log

    def killed(folder, records):
        if len(records) == CONFIG.schedule.epochs:
            raise KeyboardInterrupt
        written(folder, records)

    monkeypatch.setattr(engine, "write_log", killed)
    options = {"config": CONFIG, "output": tmp_path, "device": "cpu"}
    with pytest.raises(KeyboardInterrupt):
        train(*sides, model=small_model(), **options)
    monkeypatch.undo()
    train(*sides, model=small_model(), **options)
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    assert len(lines) == CONFIG.schedule.epochs


def test_an_update_draws_one_of_the_copies_of_each_clip_and_validation_none(clips):
    model, recordings = small_model().eval(), Recordings(clips)
    windows = Windows(recordings, None)
    copies = torch.stack([pool_windows(model, windows, COPIED, copy=copy) for copy in range(3)])
    pooled = PooledLayers(model, recordings, config=COPIED)
    everyone = range(len(clips))
    assert torch.equal(pooled.load_windows(everyone).values, copies[0])
    drawn = pooled.load(everyone, np.random.default_rng(0)).values
    places = [
        [copy for copy in range(3) if torch.equal(row, copies[copy][index])]
        for index, row in enumerate(drawn)
    ]
    assert {copy for found in places for copy in found} == {0, 1, 2}
    assert all(len(found) == 1 for found in places)


def test_a_frozen_run_with_copies_computes_the_encoder_only_at_its_start(sides, tmp_path):
    counts = []
    for epochs in (1, 3):
        model, calls = small_model(), []
        model.encoder.register_forward_pre_hook(lambda *_, calls=calls: calls.append(1))
        config = replace(COPIED, epochs=epochs)
        train(*sides, model=model, config=config, output=tmp_path / str(epochs), device="cpu")
        counts.append(len(calls))
    assert counts[0] == counts[1] > 0


@pytest.mark.parametrize("norm", ["group", "layer"])
@pytest.mark.parametrize(
    ("precision", "tolerance"), [("float32", 1e-5), ("bfloat16", 2e-2), ("float16", 2e-3)]
)
def test_stored_features_give_the_numbers_of_the_waveforms(
    norm, precision, tolerance, clips, tmp_path
):
    model = small_model(feat_extract_norm=norm, do_stable_layer_norm=norm == "layer").eval()
    recordings = Recordings(clips)
    file = tmp_path / "training.features"
    stored = StoredFeatures(model.encoder, recordings, file, precision=precision)
    with torch.inference_mode():
        logits = run_model(model, stored.load(range(len(clips)))).logits
        for index, row in enumerate(logits):
            expected = model(torch.from_numpy(recordings[index])[None]).logits[0]
            assert torch.allclose(row, expected, atol=tolerance)


def test_stored_features_are_used_again_and_replaced_when_they_are_others(clips, tmp_path):
    model, recordings = small_model().eval(), Recordings(clips)
    file = tmp_path / "training.features"
    StoredFeatures(model.encoder, recordings, file, precision="float16")
    written = file.stat().st_mtime_ns
    StoredFeatures(model.encoder, recordings, file, precision="float16")
    assert file.stat().st_mtime_ns == written
    StoredFeatures(small_model(1).eval().encoder, recordings, file, precision="float16")
    assert file.stat().st_mtime_ns != written


@pytest.mark.parametrize(
    ("changes", "form"),
    [
        ({"mode": "frozen"}, "pooled"),
        ({"mode": "partial"}, "features"),
        ({"mode": "last-k", "last_layers": 1}, "features"),
        ({"mode": "lora"}, "features"),
        ({"mode": "entire"}, "waveforms"),
        ({"mode": "frozen", "cache": "off"}, "waveforms"),
        ({"mode": "frozen", "augmentation": Augmentation()}, "waveforms"),
        ({"mode": "frozen", "augmentation": Augmentation(), "frozen_copies": 2}, "pooled"),
        ({"mode": "partial", "augmentation": Augmentation(), "frozen_copies": 2}, "waveforms"),
        ({"mode": "partial", "crop_seconds": 2.0}, "waveforms"),
        ({"mode": "partial", "augmentation": Augmentation()}, "waveforms"),
        ({"mode": "partial", "wrapper": "paper"}, "waveforms"),
    ],
    ids=lambda value: (
        str(value) if isinstance(value, str) else "-".join(map(str, value.values()))[:24]
    ),
)
def test_what_is_kept_depends_on_what_can_change(changes, form):
    config = replace(CONFIG, **changes)
    model = small_model()
    freeze(model, config)
    assert choose_form(model, config) == form


@pytest.mark.parametrize("mode", ["frozen", "partial"])
def test_a_run_on_kept_features_ends_like_one_on_waveforms(mode, sides, tmp_path):
    kept, plain = small_model(dropout=False), small_model(dropout=False)
    config = replace(CONFIG, mode=mode)
    train(*sides, model=kept, config=config, output=tmp_path / "kept")
    train(*sides, model=plain, config=replace(config, cache="off"), output=tmp_path / "plain")
    assert equal_weights(kept, plain, 2e-4 if mode == "partial" else 1e-5)


@pytest.mark.parametrize("mode", ["lora", "last-k"])
def test_other_modes_save_plain_models(mode, sides, tmp_path):
    model = small_model()
    config = replace(CONFIG, mode=mode, last_layers=1, lora_rank=2)
    result = train(*sides, model=model, config=config, output=tmp_path)
    loaded = load_model(result.folder)
    assert set(loaded.state_dict()) == set(small_model().state_dict())
    samples = torch.from_numpy(random_clips([8_000])[0])[None]
    with torch.inference_mode():
        assert torch.allclose(loaded(samples).logits, model(samples).logits, atol=1e-5)


@pytest.mark.parametrize(
    "changes",
    [{"accumulation": 2}, {"accumulation": 4}, {"recompute": True}],
    ids=["two parts", "four parts", "recompute"],
)
def test_saving_memory_does_not_change_the_update(changes, sides, tmp_path):
    plain, saving = small_model(dropout=False), small_model(dropout=False)
    config = replace(CONFIG, mode="entire", cache="off")
    train(*sides, model=plain, config=config, output=tmp_path / "plain")
    train(*sides, model=saving, config=replace(config, **changes), output=tmp_path / "saving")
    assert equal_weights(plain, saving, 2e-4)


def test_out_of_memory_halves_the_parts_and_keeps_the_batch(sides, tmp_path, monkeypatch, caplog):
    forward = LossModule.forward

    def greedy(module, batch, targets):
        if len(batch.lengths) > 1:
            raise torch.OutOfMemoryError("a pretended one")
        return forward(module, batch, targets)

    config = replace(CONFIG, epochs=1, cache="off", mode="entire")
    plain, tight = small_model(dropout=False), small_model(dropout=False)
    train(*sides, model=plain, config=config, output=tmp_path / "plain")
    with monkeypatch.context() as patch:
        patch.setattr(LossModule, "forward", greedy)
        train(*sides, model=tight, config=config, output=tmp_path / "tight")
    assert equal_weights(plain, tight, 2e-4)
    assert "now computed in 4 parts" in caplog.text


def test_memory_for_not_a_single_clip_is_an_error(sides, tmp_path, monkeypatch):
    def greedy(module, batch, targets):
        raise torch.OutOfMemoryError("a pretended one")

    monkeypatch.setattr(LossModule, "forward", greedy)
    with pytest.raises(DeviceError, match="out of memory with 1 clips"):
        train(*sides, model=small_model(), config=CONFIG, output=tmp_path)


def test_autocast_trains_in_bfloat16_and_saves_float32(sides, tmp_path):
    model = small_model()
    config = replace(CONFIG, precision="bfloat16", mode="entire")
    result = train(*sides, model=model, config=config, output=tmp_path)
    assert np.isfinite([record["loss"] for record in result.epochs]).all()
    assert {tensor.dtype for tensor in load_model(result.folder).state_dict().values()} == {
        torch.float32
    }


def test_float16_without_a_gpu_is_computed_too(sides, tmp_path):
    config = replace(CONFIG, precision="float16", mode="entire", epochs=1)
    result = train(*sides, model=small_model(), config=config, output=tmp_path, device="cpu")
    assert np.isfinite(result.epochs[0]["loss"])


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_a_gpu_learns_what_the_processor_learns(precision, sides, tmp_path):
    losses = []
    for device, kind in (("cpu", "float32"), ("cuda", precision)):
        config = replace(CONFIG, precision=kind, mode="entire", epochs=1)
        model = small_model(dropout=False)
        done = train(*sides, model=model, config=config, output=tmp_path / device, device=device)
        losses.append(done.epochs[0]["loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-3 if precision == "float32" else 3e-2)


def test_recomputing_warns_of_nothing(sides, tmp_path, recwarn):
    config = replace(CONFIG, recompute=True, epochs=1, mode="entire")
    train(*sides, model=small_model(), config=config, output=tmp_path)
    assert not [item for item in recwarn if "checkpointing" in str(item.message)]


def scalars(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    return {
        name: [(event.step, event.value) for event in events.Scalars(name)]
        for name in events.Tags()["scalars"]
    }


def test_tensorboard_shows_the_epochs_of_the_log_once_each(sides, tmp_path):
    pytest.importorskip("tensorboard", reason="the extra tensorboard")
    config = replace(CONFIG, tensorboard=True, epochs=3, mode="partial")
    train(*sides, model=small_model(), config=config, output=tmp_path)
    train(*sides, model=small_model(), config=config, output=tmp_path)
    found = scalars(tmp_path)
    records = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    for name in ("loss", "uar", "accuracy", "training_accuracy"):
        expected = [(record["step"], pytest.approx(record[name])) for record in records]
        assert found[name] == expected
    assert [value for _, value in found["rate/encoder"]] == pytest.approx(
        [record["rates"]["encoder"] for record in records]
    )
    shutil.rmtree(tmp_path / "tensorboard")
    write_events(tmp_path, records[:2])  # killed before the third epoch was written
    write_events(tmp_path, records)
    assert scalars(tmp_path)["loss"] == found["loss"]


def test_a_missing_tensorboard_is_reported_before_the_first_step(sides, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    config = replace(CONFIG, tensorboard=True)
    with pytest.raises(DependencyError, match=r"emoser\[tensorboard\]"):
        train(*sides, model=small_model(), config=config, output=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_tensorboard_log_does_not_make_another_run(sides, tmp_path):
    pytest.importorskip("tensorboard", reason="the extra tensorboard")
    config = replace(CONFIG, mode="frozen")
    first = train(*sides, model=small_model(), config=config, output=tmp_path)
    config = replace(config, tensorboard=True, save_every_steps=1)
    assert train(*sides, model=small_model(), config=config, output=tmp_path) == first


def test_weights_that_an_epoch_would_overwrite_are_named(sides, tmp_path, caplog):
    model = small_model()
    front = model.encoder.feature_extractor.conv_layers[0].conv.weight
    with torch.no_grad():
        front.mul_(1e-3)
    config = replace(CONFIG, mode="entire", epochs=1)
    train(*sides, model=model, config=config, output=tmp_path / "entire")
    assert "conv_layers.0.conv.weight are about" in caplog.text
    assert "mode 'partial'" in caplog.text
    caplog.clear()
    config = replace(config, mode="partial")
    train(*sides, model=small_model(), config=config, output=tmp_path / "partial")
    assert not caplog.text


def test_a_state_holds_only_what_training_can_change(sides, tmp_path):
    config = replace(CONFIG, mode="frozen", epochs=1)
    model = small_model()
    train(*sides, model=model, config=config, output=tmp_path)
    state = torch.load(states(tmp_path)[-1] / "state.pt", weights_only=True)
    learning = {name for name, item in model.named_parameters() if item.requires_grad}
    buffers = {name for name, _ in model.named_buffers()}
    assert learning <= set(state["model"]) <= learning | buffers


def test_muon_moves_matrices_and_kernels_of_the_encoder_and_adamw_the_rest():
    """A step of each, beside torch's own optimizers on the same gradients."""
    config = replace(CONFIG, optimizer="muon", mode="entire", weight_decay=0.1)
    ours, theirs = small_model(dropout=False), small_model(dropout=False)
    samples = torch.from_numpy(np.stack(random_clips([8_000, 8_000])))
    for model in (ours, theirs):
        model(samples).logits.square().sum().backward()
    inner = [item for item in theirs.encoder.parameters() if item.ndim == 2]
    kernels = [
        part.weight
        for part in theirs.encoder.modules()
        if isinstance(part, torch.nn.Conv1d) and "weight" in part._parameters
    ]
    assert all(item.ndim == 3 for item in kernels)
    flat = [torch.nn.Parameter(item.detach().flatten(1).clone()) for item in kernels]
    for matrix, kernel in zip(flat, kernels, strict=True):
        matrix.grad = kernel.grad.flatten(1)
    chosen = {id(item) for item in [*inner, *kernels]}
    rest = [item for item in theirs.parameters() if id(item) not in chosen]
    rate, decay = CONFIG.optimisation.encoder_learning_rate, config.optimisation.weight_decay
    parts = (
        torch.optim.Muon(
            [*inner, *flat], lr=2.5 * rate, weight_decay=decay, adjust_lr_fn="match_rms_adamw"
        ),
        torch.optim.AdamW(
            [
                {"params": [item for item in rest if item.ndim > 1], "weight_decay": decay},
                {"params": [item for item in rest if item.ndim <= 1], "weight_decay": 0.0},
            ],
            lr=rate,
            betas=config.optimisation.betas,
        ),
    )
    build_optimizer(ours, torch.nn.Identity(), config).step()
    for part in parts:
        part.step()
    for matrix, kernel in zip(flat, kernels, strict=True):
        kernel.data = matrix.data.view_as(kernel)
    assert equal_weights(ours, theirs, tolerance=1e-6)
    assert not equal_weights(ours, small_model(dropout=False), tolerance=1e-4)


def test_an_interrupted_run_with_muon_ends_the_same(sides, tmp_path, monkeypatch):
    config = replace(CONFIG, optimizer="muon", save_every_steps=3)
    whole, broken = small_model(), small_model()
    train(*sides, model=whole, config=config, output=tmp_path / "whole")
    update, calls = Stepper.update, []

    def interrupt(self, *arguments):
        calls.append(1)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return update(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Stepper, "update", interrupt)
        with pytest.raises(KeyboardInterrupt):
            train(*sides, model=broken, config=config, output=tmp_path / "broken")
    again = small_model()
    train(*sides, model=again, config=config, output=tmp_path / "broken")
    assert equal_weights(again, whole)


def test_newbob_lowers_the_rates_of_a_run(sides, tmp_path):
    config = replace(CONFIG, schedule="newbob", epochs=4, head_learning_rate=0.0, mode="frozen")
    result = train(*sides, model=small_model(), config=config, output=tmp_path)
    assert len({record["accuracy"] for record in result.epochs}) == 1
    config = replace(config, head_learning_rate=1e-6)
    result = train(*sides, model=small_model(), config=config, output=tmp_path / "again")
    rates = [record["rates"]["head"] for record in result.epochs]
    assert rates == pytest.approx([1e-6, 1e-6, 0.9e-6, 0.81e-6])


def test_class_weights_make_classes_count_alike(sides, tmp_path):
    config = replace(CONFIG, class_weights=True, epochs=1, mode="frozen")
    result = train(*sides, model=small_model(), config=config, output=tmp_path)
    assert np.isfinite(result.epochs[0]["loss"])


@pytest.fixture
def finished(sides, tmp_path):
    config = replace(CONFIG, save_every_steps=3)
    model = small_model()
    train(*sides, model=model, config=config, output=tmp_path)
    return config, tmp_path, model


def states(folder):
    return sorted((folder / "states").glob("step-*"))


def test_states_are_folders_with_a_manifest_and_two_are_kept(finished):
    _, folder, _ = finished
    assert len(states(folder)) == 2
    for state in states(folder):
        manifest = json.loads((state / "manifest.json").read_text())
        assert manifest["files"]["state.pt"]["size"] == (state / "state.pt").stat().st_size


@pytest.mark.parametrize("name", ["state.pt", "manifest.json"])
@pytest.mark.parametrize("damage", ["delete", "truncate", "flip"])
def test_a_damaged_state_is_passed_over_and_the_run_ends_the_same(
    name, damage, finished, sides, caplog
):
    config, folder, model = finished
    file = states(folder)[-1] / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0xFF
    {"delete": file.unlink, "truncate": lambda: file.write_bytes(content[: len(content) // 3]),
     "flip": lambda: file.write_bytes(content)}[damage]()  # fmt: skip
    if (name, damage) == ("manifest.json", "flip"):
        file.write_bytes(b"{}")
    again = small_model()
    train(*sides, model=again, config=config, output=folder)
    assert equal_weights(again, model)
    assert "is damaged" in caplog.text


@pytest.mark.parametrize("content", [b"[" * 100_000, b"[]", b"\xff", b'{"files": [1]}'])
def test_a_manifest_of_another_form_is_damage(content, finished, sides, caplog):
    config, folder, model = finished
    (states(folder)[-1] / "manifest.json").write_bytes(content)
    again = small_model()
    train(*sides, model=again, config=config, output=folder)
    assert equal_weights(again, model)
    assert "is damaged" in caplog.text


@pytest.mark.parametrize("side", [0, 1], ids=["training", "validation"])
def test_other_sound_under_the_same_names_is_another_run(side, sides, tmp_path):
    """Also where size and time of the file stay."""
    config = replace(CONFIG, save_every_steps=3)
    copies = [
        [replace(item, path=shutil.copy2(item.path, tmp_path)) for item in part] for part in sides
    ]
    train(*copies, model=small_model(), config=config, output=tmp_path / "run")
    file = Path(copies[side][3].path)
    stated, content = file.stat(), bytearray(file.read_bytes())
    content[-200] ^= 0x40
    file.write_bytes(content)
    os.utime(file, ns=(stated.st_atime_ns, stated.st_mtime_ns))
    with pytest.raises(CheckpointError, match="other settings or recordings"):
        train(*copies, model=small_model(), config=config, output=tmp_path / "run")


def test_damage_to_all_states_is_refused_with_every_reason(finished, sides):
    config, folder, _ = finished
    for state in states(folder):
        (state / "state.pt").unlink()
    with pytest.raises(CheckpointError, match=r"step-.* is damaged.*step-.* is damaged"):
        train(*sides, model=small_model(), config=config, output=folder)


def test_another_number_of_processes_is_refused(finished, sides):
    config, folder, _ = finished
    for state in states(folder):
        file = state / "manifest.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "processes": 2}))
    with pytest.raises(CheckpointError, match="written by 2 processes, this run has 1"):
        train(*sides, model=small_model(), config=config, output=folder)


def test_leftovers_of_a_killed_save_are_cleared(finished, sides):
    config, folder, _ = finished
    stale = folder / "states" / ".step-00000099.abc"
    stale.mkdir()
    foreign = folder / ".git"
    foreign.mkdir()
    old = folder / ".best.saving-elsewhere-1-xyz"
    (old / "weights").mkdir(parents=True)
    train(*sides, model=small_model(), config=config, output=folder)
    assert not stale.exists()
    assert not old.exists()
    assert foreign.exists()
    assert load_model(folder / "best")


SCRIPT = Path(__file__).parents[2] / "support" / "train_small.py"


def environment():
    return {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "ACCELERATE_USE_CPU": "true",
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }


def launch(folder, clips, *, processes=1, **changes):
    """Start the training script in a process of its own."""
    table = folder / "clips.json"
    folder.mkdir(exist_ok=True)
    rows = [[item.path, item.label, item.speaker] for item in clips]
    table.write_text(json.dumps({"clips": rows, "changes": changes}))
    command = [sys.executable]
    if processes > 1:
        command += ["-m", "torch.distributed.run", "--nproc_per_node", str(processes)]
        command += ["--master_port", "29871"]
    command += [str(SCRIPT), str(table), str(folder / "run")]
    return subprocess.Popen(
        command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def finish(process):
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output.decode()[-3000:]
    return output.decode()


def losses(folder):
    return log_losses(folder / "run" / "log.jsonl")


@pytest.mark.slow
def test_two_processes_learn_like_one(clips, tmp_path):
    for count in (1, 2):
        finish(launch(tmp_path / str(count), clips, processes=count, dropout=False))
    one, two = losses(tmp_path / "1"), losses(tmp_path / "2")
    difference = np.max(np.abs(np.array(one) - np.array(two)))
    print(f"two processes against one: largest difference of {len(one)} losses {difference:.1e}")
    assert difference <= 1e-5
    assert equal_weights(
        load_model(tmp_path / "1/run/best"), load_model(tmp_path / "2/run/best"), 1e-4
    )


def accelerate(count, *words):
    """Run a command of emoser under `accelerate launch` with some processes on the CPU."""
    command = [sys.executable, "-m", "accelerate.commands.launch", "--num_machines", "1"]
    command += ["--num_processes", str(count), "--mixed_precision", "no", "--dynamo_backend", "no"]
    command += ["--cpu"] if count == 1 else ["--multi_gpu", "--main_process_port", "29872"]
    process = subprocess.Popen(
        [*command, "-m", "emoser", *words, "--device", "cpu"],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    return finish(process)


def log_losses(file):
    return [json.loads(line)["loss"] for line in file.read_text().splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["finetune", "reproduce"])
def test_commands_under_accelerate_launch_learn_like_one_process(name, tmp_path):
    """Equal losses, one report, one table on the standard output."""
    (tmp_path / "nemo").mkdir()
    lengths = np.random.default_rng(1).integers(4_000, 9_000, 48)
    rows = ["path,label,speaker"]
    for index, clip in enumerate(random_clips(lengths.tolist())):
        who = ("EB0", "IC0", "KS0", "MP0")[index // 12]
        emotion = ("happiness", "sadness")[index % 2]
        soundfile.write(tmp_path / "nemo" / f"{who}_{emotion}_{index}.wav", clip, 16_000)
        rows.append(f"nemo/{who}_{emotion}_{index}.wav,{emotion},{who}")
    (tmp_path / "calls.csv").write_text("\n".join(rows))
    base = tmp_path / "base"
    torch.manual_seed(0)
    Wav2Vec2Model(small_config(Wav2Vec2Config, **STILL)).save_pretrained(base)
    Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(base)
    words = {
        "finetune": ["finetune", str(tmp_path / "calls.csv"), "--mode", "frozen", "--epochs", "3"],
        "reproduce": ["reproduce", "PF-w2v-base", "--corpus", "nemo", "--setting", "groups",
                      "--root", str(tmp_path / "nemo"), "--folds", "3", "--epochs", "2"],
    }[name]  # fmt: skip
    found = []
    for count in (1, 2):
        output = tmp_path / str(count)
        text = accelerate(count, *words, "--base", str(base), "--output", str(output))
        assert text.count("protocol: " if name == "finetune" else "Protocol: ") == 1
        found.append(
            [loss for file in sorted(output.rglob("log.jsonl")) for loss in log_losses(file)]
        )
    difference = np.max(np.abs(np.array(found[0]) - np.array(found[1])))
    print(f"{name}: largest difference of {len(found[0])} losses {difference:.1e}")
    assert difference <= 1e-5


@pytest.mark.slow
def test_twenty_kills_at_random_moments_change_nothing(clips, tmp_path):
    """A forked child trains, is killed, and is forked again, until one of them finishes."""
    finish(launch(tmp_path / "whole", clips, epochs=150))
    began = time.monotonic()
    process = launch(tmp_path / "killed", clips, epochs=150, kills=24)
    output, _ = process.communicate(timeout=900)
    assert process.returncode == 0, output.decode()[-3000:]
    kills = int(output.decode().split("kills ")[1].split()[0])
    print(f"{kills} kills in {time.monotonic() - began:.0f} s")
    assert kills >= 20
    whole, killed = (load_model(tmp_path / name / "run/best") for name in ("whole", "killed"))
    assert equal_weights(whole, killed)
    assert losses(tmp_path / "whole") == losses(tmp_path / "killed")


@pytest.mark.slow
def test_an_interrupt_keeps_the_last_state(clips, tmp_path):
    process = launch(tmp_path, clips, epochs=200)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not states(tmp_path / "run"):
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode != 0
    assert states(tmp_path / "run")
