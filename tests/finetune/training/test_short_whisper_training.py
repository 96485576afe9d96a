"""A Whisper of transformers as the base of a run: every mode, its layers, rates and weights."""

from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch
from support.models import LABELS, random_clips, small_whisper
from transformers import WhisperFeatureExtractor
from transformers.models.whisper.modeling_whisper import WhisperForConditionalGeneration

from emoser import EmotionClassifier
from emoser.checkpoints.save import load_model
from emoser.cli import main
from emoser.finetune import FinetuneConfig, Utterance, train
from emoser.finetune.config import Augmentation
from emoser.finetune.data.inputs import PooledLayers, choose_form, run_model
from emoser.finetune.data.recordings import Recordings
from emoser.finetune.experiments.start import build_initial_model
from emoser.finetune.training.freezing import freeze
from emoser.finetune.training.optimization import WeightAverage, build_optimizer

ALL_PARTS = {"conv1", "conv2", "layers.0", "layers.1"}
TRAINED = {
    "entire": ALL_PARTS,
    "partial": {"layers.0", "layers.1"},
    "last-k": {"layers.1"},
    "frozen": set(),
    "lora": {"layers.0", "layers.1"},
}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A whole Whisper in half precision, as a folder of transformers."""
    folder = tmp_path_factory.mktemp("base")
    torch.manual_seed(0)
    WhisperForConditionalGeneration(small_whisper()).half().save_pretrained(folder)
    WhisperFeatureExtractor().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def sides(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    clips = random_clips(np.random.default_rng(0).integers(300, 9_000, 12).tolist())
    utterances = []
    for index, clip in enumerate(clips):
        soundfile.write(folder / f"{index}.wav", clip, 16_000)
        speaker = "b" if index >= 8 else "a"
        utterances.append(Utterance(str(folder / f"{index}.wav"), LABELS[index % 4], speaker))
    return utterances[:8], utterances[8:]


def settings(base, **changes):
    values = {
        "num_layers": 2,
        "epochs": 1,
        "batch_size": 4,
        "encoder_learning_rate": 1e-3,
        "head_learning_rate": 1e-2,
        "crop_seconds": None,
        "augmentation": Augmentation.off(),
        "last_layers": 1,
    }
    return FinetuneConfig(str(base), **{**values, **changes})


@pytest.mark.parametrize("head", ["linear", "statistics", "framewise", "attention"])
@pytest.mark.parametrize("mode", TRAINED)
def test_every_mode_trains_its_parts_and_saves_a_checkpoint(mode, head, base, sides, tmp_path):
    config = settings(base, mode=mode, head=head, layer_mix=head == "linear")
    model = build_initial_model(config, LABELS)
    before = {name: tensor.clone() for name, tensor in model.encoder.state_dict().items()}
    train(*sides, model=model, config=config, output=tmp_path, device="cpu")
    trained = load_model(tmp_path / "best")
    changed = {
        part
        for part in ALL_PARTS
        for name, tensor in trained.encoder.state_dict().items()
        if f"{part}." in name and not torch.equal(tensor, before[name])
    }
    assert changed == TRAINED[mode]
    assert (trained.config.padding, trained.encoder.num_hidden_states) == ("none", 3)
    [clip] = random_clips([5_000])
    classifier = EmotionClassifier.from_pretrained(tmp_path / "best", backend="torch")
    with torch.inference_mode():
        expected = trained(torch.from_numpy(clip)[None]).logits[0].softmax(dim=0)
    scores = classifier.predict(clip, sampling_rate=16_000).scores
    temperature = trained.config.temperature
    assert temperature == 1.0
    assert [scores[label] for label in LABELS] == pytest.approx(expected.tolist(), abs=1e-5)


@pytest.mark.parametrize(
    ("changes", "form"),
    [
        ({}, "pooled"),
        ({"layer_mix": True}, "pooled"),
        ({"head": "statistics"}, "pooled"),
        ({"head": "statistics", "layer_mix": True}, "waveforms"),
        ({"head": "attention"}, "waveforms"),
        ({"head": "framewise"}, "waveforms"),
        ({"crop_seconds": 1.0}, "waveforms"),
    ],
    ids=str,
)
def test_a_frozen_encoder_computes_each_clip_once(changes, form, base, sides):
    config = settings(base, mode="frozen", **changes)
    model = build_initial_model(config, LABELS)
    freeze(model, config)
    model.eval()
    assert choose_form(model, config) == form
    if form == "pooled":
        recordings = Recordings(sides[0])
        pooled = PooledLayers(model, recordings)
        with torch.inference_mode():
            for index in range(len(recordings)):
                kept = run_model(model, pooled.load([index])).logits
                whole = model(torch.from_numpy(recordings[index])[None]).logits
                torch.testing.assert_close(kept, whole, atol=1e-5, rtol=1e-5)


def test_rates_fall_from_layer_to_layer(base):
    config = settings(base, num_layers=3, mode="entire", layer_decay=0.5)
    model = build_initial_model(config, LABELS)
    freeze(model, config)
    optimizer = build_optimizer(model, torch.nn.Module(), config)
    rates = {
        id(weight): group["lr"] for group in optimizer.param_groups for weight in group["params"]
    }
    whisper = model.encoder.backbone
    told = [rates[id(layer.fc1.weight)] for layer in whisper.layers]
    assert told == pytest.approx([2.5e-4, 5e-4, 1e-3])
    assert rates[id(whisper.conv1.weight)] == pytest.approx(1.25e-4)
    assert rates[id(whisper.layer_norm.weight)] == pytest.approx(1e-3)
    assert rates[id(model.head.classifier.weight)] == pytest.approx(1e-2)


@pytest.mark.parametrize("decay", [0.0, 0.9])
def test_a_share_of_the_pretrained_weights_is_saved(decay, base):
    config = settings(base, mode="partial", ema_decay=decay, pretrained_share=0.25)
    model = build_initial_model(config, LABELS)
    freeze(model, config)
    average = WeightAverage(model, config.schedule)
    weight, head = model.encoder.backbone.layers[0].fc1.weight, model.head.classifier.weight
    start, first = weight.detach().clone(), head.detach().clone()
    with torch.no_grad():
        weight.add_(1.0)
        head.add_(1.0)
    average.update(0)
    moved = 1.0 - min(decay, 0.1)  # the average forgets faster in the first updates
    with average.applied():
        torch.testing.assert_close(weight.detach(), start + 0.75 * moved)
        torch.testing.assert_close(head.detach(), first + moved)
    torch.testing.assert_close(weight.detach(), start + 1.0)
    torch.testing.assert_close(head.detach(), first + 1.0)


def test_a_run_with_a_share_resumes_to_the_same_weights(base, sides, tmp_path):
    config = settings(base, mode="partial", epochs=2, pretrained_share=0.5, ema_decay=0.5)
    models = []
    for name, stops in (("whole", False), ("stopped", True)):
        if stops:
            torn = build_initial_model(config, LABELS)
            with pytest.raises(KeyboardInterrupt):
                train(*sides, model=_stop(torn, 3), config=config, output=tmp_path / name)
        model = build_initial_model(config, LABELS)
        train(*sides, model=model, config=config, output=tmp_path / name, device="cpu")
        models.append(model)
    for first, second in zip(models[0].parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(first, second, rtol=0, atol=1e-7)


def _stop(model, calls):
    """Interrupt the training when the model is put into train mode so many times."""
    counted, train_mode = iter(range(calls)), model.train

    def count(mode=True):
        if mode and next(counted, None) is None:
            raise KeyboardInterrupt
        return train_mode(mode)

    model.train = count
    return model


def test_masking_and_level_reach_the_encoder(base):
    model = build_initial_model(settings(base, normalization="level"), LABELS)
    assert model.config.normalization == "level"
    assert model.encoder.config.apply_spec_augment
    [clip] = random_clips([4_000])
    samples = torch.from_numpy(clip)[None]
    loud = model.encoder.normalize(samples * 0.01, None)
    torch.testing.assert_close(loud, model.encoder.normalize(samples, None), rtol=1e-3, atol=1e-5)
    level = 20 * float(loud.square().mean().sqrt().log10())
    assert level == pytest.approx(-25.0, abs=0.01)
    still = build_initial_model(settings(base, masking=False), LABELS)
    assert not still.encoder.config.apply_spec_augment


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"num_layers": 0}, "num_layers is 0, must be above 0 or None"),
        ({"layer_decay": 0.0}, "layer_decay is .*, must be above 0 and at most 1"),
        ({"pretrained_share": 1.0}, "pretrained_share is .*, must be at least 0 and below 1"),
        ({"normalization": "loud"}, "normalization is 'loud'"),
        ({"normalization": "level", "output_norm": True}, "exclude each other"),
    ],
)
def test_settings_out_of_range_are_refused(changes, fault):
    with pytest.raises(ValueError, match=fault):
        FinetuneConfig(**changes)


def test_the_first_layers_of_any_encoder_can_be_used():
    model = build_initial_model(FinetuneConfig("emoser-tiny", num_layers=1), LABELS)
    whole = build_initial_model(FinetuneConfig("emoser-tiny"), LABELS)
    samples = torch.from_numpy(random_clips([8_000])[0])[None]
    with torch.inference_mode():
        states = whole.eval().encoder(samples, all_layers=True).hidden_states
        ours = model.eval().encoder(samples, all_layers=True).hidden_states
    assert len(ours) == 2
    torch.testing.assert_close(ours[0], states[0])
    with pytest.raises(ValueError, match="final_norm cannot be left out"):
        build_initial_model(FinetuneConfig("emoser-tiny", final_norm=False), LABELS)


def test_the_command_takes_a_whisper(base, tmp_path, capsys):
    rows = []
    for index, clip in enumerate(random_clips([2_000] * 28)):
        soundfile.write(tmp_path / f"{index}.wav", clip, 16_000)
        part = "train" if index < 20 else "validation" if index < 24 else "test"
        rows.append(f"{index}.wav,{LABELS[index % 4]},{part},{part}")
    table = tmp_path / "table.csv"
    table.write_text("\n".join(["path,label,speaker,split", *rows]) + "\n")
    place = tmp_path / "run"
    code = main(
        ["finetune", str(table), "--base", str(base), "--layers", "1", "--mode", "frozen",
         "--epochs", "2", "--output", str(place)]
    )  # fmt: skip
    assert code == 0, capsys.readouterr().err
    assert load_model(place / "best").encoder.num_hidden_states == 2


def test_settings_are_replaced_by_name(base):
    config = replace(settings(base), num_layers=3, layer_decay=0.7, pretrained_share=0.3)
    assert FinetuneConfig.from_dict(config.to_dict()) == config
