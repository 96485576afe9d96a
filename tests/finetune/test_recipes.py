"""The paper's settings: recipes, pretrained encoders, wrappers, freezing, and the authors' code."""

from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch
from support.models import LABELS, pad, random_clips, small_config
from support.reference_checkpoints import bert_config, whisper_config
from transformers import (
    AutoModel,
    HubertConfig,
    HubertForCTC,
    HubertModel,
    Wav2Vec2BertModel,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForPreTraining,
    Wav2Vec2Model,
)
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from emoser.checkpoints.catalog import RECIPE_ENCODERS
from emoser.checkpoints.pretrained import start_model
from emoser.checkpoints.save import build_model
from emoser.errors import CheckpointError
from emoser.finetune import RECIPES, FinetuneConfig, Utterance, train
from emoser.finetune.data.batches import plan_epoch
from emoser.finetune.data.inputs import choose_form
from emoser.finetune.data.padding import forward_batch
from emoser.finetune.data.recordings import Recordings
from emoser.finetune.experiments.start import build_initial_model
from emoser.finetune.recipes import PAPER
from emoser.finetune.training.freezing import freeze, merge_lora, set_training
from emoser.finetune.training.optimization import anneal, build_optimizer
from emoser.finetune.training.steps import Stepper
from emoser.models.config import ModelConfig
from emoser.models.emotion2vec import Emotion2VecConfig, Emotion2VecEncoder
from emoser.models.model import EmotionModel
from emoser.models.spectral import FilterBankEncoder, LogMelEncoder

STILL = {
    "hidden_dropout": 0.0,
    "attention_dropout": 0.0,
    "activation_dropout": 0.0,
    "feat_proj_dropout": 0.0,
    "layerdrop": 0.0,
}


def encoder_folder(folder, kind=Wav2Vec2Config, architecture=Wav2Vec2Model, **changes):
    torch.manual_seed(0)
    config = small_config(kind, **changes)
    architecture(config).save_pretrained(folder)
    Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(folder)
    return folder


def test_every_experiment_of_the_paper_has_a_recipe():
    assert len(RECIPES) == 3 * 7
    recipe = RECIPES["PF-hbt-large"]
    assert (recipe.base, recipe.model.mode) == ("facebook/hubert-large-ll60k", "partial")
    rates = recipe.optimisation.encoder_learning_rate, recipe.optimisation.head_learning_rate
    assert rates == (1e-5, 1e-4)
    assert (recipe.data.batch_size, recipe.schedule.epochs) == (4, 30)
    assert (recipe.optimisation.optimizer, recipe.optimisation.max_grad_norm) == ("adam", 5.0)
    assert (recipe.schedule.decay, recipe.schedule.selection) == ("newbob", "accuracy")
    assert not recipe.model.masking
    assert not recipe.varies
    assert {name.split("-", 1)[1] for name in RECIPES} == set(RECIPE_ENCODERS)
    assert FinetuneConfig.from_dict(recipe.to_dict()) == recipe


@pytest.mark.parametrize(
    ("kind", "architecture"),
    [
        (Wav2Vec2Config, Wav2Vec2Model),
        (Wav2Vec2Config, Wav2Vec2ForPreTraining),
        (HubertConfig, HubertModel),
        (HubertConfig, HubertForCTC),
    ],
    ids=["wav2vec2", "pretraining", "hubert", "ctc"],
)
def test_a_pretrained_encoder_has_the_outputs_of_transformers(kind, architecture, tmp_path):
    encoder_folder(tmp_path, kind, architecture, vocab_size=32)
    model = start_model(tmp_path, ModelConfig(labels=LABELS), seed=0).eval()
    theirs = AutoModel.from_pretrained(tmp_path, dtype=torch.float32).eval()
    samples = torch.from_numpy(random_clips([16_000])[0])[None]
    with torch.inference_mode():
        normalized = model.encoder.normalize(samples, None)
        expected = theirs(normalized).last_hidden_state
        found = model.encoder(samples).frames
    assert torch.allclose(found, expected, atol=1e-5)


def test_an_encoder_with_a_missing_or_misshapen_tensor_is_refused(tmp_path):
    from safetensors.torch import load_file, save_file

    encoder_folder(tmp_path)
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    del tensors["encoder.layers.1.attention.k_proj.weight"]
    tensors["encoder.layer_norm.bias"] = torch.zeros(3)
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(
        CheckpointError, match=r"missing: .*k_proj.weight.*wrong shape: .*layer_norm"
    ):
        start_model(tmp_path, ModelConfig(labels=LABELS), seed=0)


def test_the_model_of_a_recipe_is_the_authors_model(tmp_path):
    encoder_folder(tmp_path)
    config = replace(PAPER, base=str(tmp_path))
    model = build_initial_model(config, LABELS)
    assert model.config.normalization == "layer"
    assert model.config.output_norm
    assert model.encoder.config.apply_spec_augment is False
    frozen = build_initial_model(replace(RECIPES["Frozen-w2v-base"], base=str(tmp_path)), LABELS)
    assert frozen.config.layer_mix
    assert frozen.head.projector.out_features == 256


def test_paddings_agree_on_one_clip_and_differ_in_a_batch(tmp_path):
    encoder_folder(tmp_path, **STILL)
    model = build_initial_model(replace(PAPER, base=str(tmp_path)), LABELS).eval()
    clips = random_clips([16_000, 6_000])
    with torch.inference_mode():
        alone = {
            padding: forward_batch(model, *pad(clips[1:]), padding=padding).logits
            for padding in ("exact", "paper", "today")
        }
        together = {
            padding: forward_batch(model, *pad(clips), padding=padding).logits[1:]
            for padding in ("exact", "paper", "today")
        }
    for logits in alone.values():
        assert torch.allclose(logits, alone["exact"], atol=1e-5)
    assert torch.allclose(together["exact"], alone["exact"], atol=1e-5)
    for padding in ("paper", "today"):
        assert not torch.allclose(together[padding], alone[padding], atol=1e-4)


@pytest.mark.parametrize(
    ("mode", "trained", "frozen"),
    [
        ("entire", "encoder.feature_extractor.conv_layers.0.conv.weight", None),
        ("partial", "encoder.backbone.feature_projection.projection.weight",
         "encoder.feature_extractor.conv_layers.0.conv.weight"),
        ("frozen", "head.classifier.weight",
         "encoder.backbone.encoder.layers.1.final_layer_norm.bias"),
        ("last-k", "encoder.backbone.encoder.layers.1.final_layer_norm.bias",
         "encoder.backbone.encoder.layers.0.final_layer_norm.bias"),
        ("lora", "encoder.backbone.encoder.layers.0.attention.q_proj.lora_A.default.weight",
         "encoder.backbone.encoder.layers.0.attention.q_proj.base_layer.weight"),
    ],
    ids=["entire", "partial", "frozen", "last-k", "lora"],
)  # fmt: skip
def test_a_mode_trains_and_freezes_its_parts(mode, trained, frozen):
    model = build_model(small_config(), ModelConfig(labels=LABELS), seed=0)
    config = FinetuneConfig(mode=mode, last_layers=1)
    freeze(model, config)
    parameters = dict(model.named_parameters())
    assert parameters[trained].requires_grad
    assert parameters["head.classifier.weight"].requires_grad
    if frozen is not None:
        assert not parameters[frozen].requires_grad
    set_training(model, config)
    if mode == "frozen":
        assert not any(module.training for module in model.encoder.modules())
    assert model.head.training


@pytest.mark.parametrize("mode", ["entire", "partial", "last-k"])
@pytest.mark.parametrize("kind", ["whisper", "wav2vec2-bert", "emotion2vec"])
def test_every_kind_of_encoder_learns_in_every_mode(kind, mode):
    """Of transformers and of emoser's own: the last layer learns, frozen parts have no gradient."""
    encoder = {
        "whisper": lambda: LogMelEncoder(WhisperEncoder(whisper_config()())),
        "wav2vec2-bert": lambda: FilterBankEncoder(Wav2Vec2BertModel(bert_config())),
        "emotion2vec": lambda: Emotion2VecEncoder(
            Emotion2VecConfig(hidden_size=64, num_heads=4, mlp_size=128, depth=2, prenet_depth=1)
        ),
    }[kind]()
    if kind == "wav2vec2-bert":
        encoder.config.layerdrop = 0.0  # or a layer may learn nothing by chance
    model = EmotionModel(ModelConfig(labels=LABELS), encoder)
    config = FinetuneConfig(mode=mode, last_layers=1)
    freeze(model, config)
    set_training(model, config)
    assert choose_form(model, config) == "waveforms"
    samples = torch.from_numpy(np.stack(random_clips([16_000, 16_000])))
    model(samples).logits.square().sum().backward()
    parts = encoder.parts()
    learned = [any(item.grad is not None for item in layer.parameters()) for layer in parts.layers]
    assert learned == [mode != "last-k"] * (len(parts.layers) - 1) + [True]
    front = [item for part in parts.convolutions for item in part.parameters()]
    assert all((item.grad is not None) == (mode == "entire") for item in front)


def test_merged_lora_is_the_same_model_in_plain_weights():
    model = build_model(small_config(), ModelConfig(labels=LABELS), seed=0).eval()
    names = set(model.state_dict())
    freeze(model, FinetuneConfig(mode="lora"))
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator)
    merged = merge_lora(model)
    assert set(merged.state_dict()) == names
    samples = torch.from_numpy(random_clips([16_000])[0])[None]
    with torch.inference_mode():
        assert torch.allclose(merged(samples).logits, model.eval()(samples).logits, atol=1e-4)


def test_too_many_last_layers_are_refused():
    model = build_model(small_config(), ModelConfig(labels=LABELS), seed=0)
    with pytest.raises(ValueError, match="the encoder has 2"):
        freeze(model, FinetuneConfig(mode="last-k", last_layers=3))


def test_one_adam_with_two_rates_is_two_adams():
    ours = build_model(small_config(), ModelConfig(labels=LABELS), seed=0)
    theirs = build_model(small_config(), ModelConfig(labels=LABELS), seed=0)
    optimizer = build_optimizer(ours, torch.nn.Identity(), replace(PAPER, mode="entire"))
    two = (
        torch.optim.Adam(theirs.encoder.parameters(), lr=1e-5),
        torch.optim.Adam(theirs.head.parameters(), lr=1e-4),
    )
    samples = torch.from_numpy(random_clips([8_000])[0])[None]
    for model, optimizers in ((ours, (optimizer,)), (theirs, two)):
        model.eval()
        for _ in range(3):
            model(samples).logits.square().sum().backward()
            for each in optimizers:
                each.step()
                each.zero_grad()
    for name, tensor in ours.state_dict().items():
        assert torch.allclose(tensor, theirs.state_dict()[name], rtol=1e-5, atol=1e-7)


@pytest.mark.slow
def test_learning_rates_are_those_of_the_authors_schedulers():
    scheduling = pytest.importorskip("speechbrain.nnet.schedulers")
    model = build_model(small_config(), ModelConfig(labels=LABELS), seed=0)
    optimizer = build_optimizer(model, torch.nn.Identity(), PAPER)
    theirs = {
        "encoder": scheduling.NewBobScheduler(1e-5, annealing_factor=0.9),
        "head": scheduling.NewBobScheduler(1e-4, annealing_factor=0.9),
    }
    before = None
    for error in (0.6, 0.55, 0.5499, 0.7, 0.4, 0.4):
        anneal(optimizer, before, error)
        before = error
        for group in optimizer.param_groups:
            scheduler = theirs["encoder" if group["encoder"] else "head"]
            if not group.get("seen"):
                _, expected = scheduler(error)
                assert group["lr"] == expected
    assert optimizer.param_groups[0]["lr"] == 1e-5 * 0.9 * 0.9 * 0.9


@pytest.fixture(scope="module")
def equal_clips(tmp_path_factory):
    """96 clips of one length, so that no treatment of padding matters."""
    folder = tmp_path_factory.mktemp("equal")
    utterances = []
    for index, clip in enumerate(random_clips([8_000] * 96)):
        path = folder / f"{index}.wav"
        soundfile.write(path, clip, 16_000)
        speaker = "b" if index >= 80 else "a"
        utterances.append(Utterance(str(path), LABELS[index % 4], speaker=speaker))
    return utterances


def authors_losses(folder, batches, recordings, targets, head, *, mode):
    """20 steps of the authors' recipe with SpeechBrain's modules, the pooling noise removed."""
    from speechbrain.integrations.huggingface.wav2vec2 import Wav2Vec2
    from speechbrain.nnet.linear import Linear
    from speechbrain.nnet.losses import nll_loss
    from speechbrain.nnet.pooling import StatisticsPooling

    encoder = Wav2Vec2(
        str(folder),
        str(folder / "cache"),
        output_norm=True,
        freeze_feature_extractor=mode == "partial",
    )
    pooling = StatisticsPooling(return_std=False)
    pooling._get_gauss_noise = lambda shape, device="cpu": torch.zeros(shape, device=device)
    output = Linear(input_size=64, n_neurons=4, bias=False)
    output.w.weight.data.copy_(head)
    modules = torch.nn.ModuleList([encoder, output])
    optimizers = (
        torch.optim.Adam(output.parameters(), lr=1e-4),
        torch.optim.Adam(encoder.parameters(), lr=1e-5),
    )
    losses = []
    modules.train()
    for batch in batches:
        samples = torch.stack([torch.from_numpy(recordings[index]) for index in batch])
        lengths = torch.ones(len(batch))
        frames = encoder(samples, lengths)
        scores = torch.log_softmax(output(pooling(frames, lengths)).squeeze(1), dim=-1)
        loss = nll_loss(scores, targets[batch])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(modules.parameters(), 5.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        losses.append(float(loss.detach()))
    return losses


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["partial", "entire"])
@pytest.mark.parametrize("norm", ["group", "layer"])
def test_twenty_losses_are_those_of_the_authors_code(
    mode, norm, equal_clips, tmp_path, monkeypatch
):
    pytest.importorskip("speechbrain")
    kind = {"feat_extract_norm": norm, "do_stable_layer_norm": norm == "layer"}
    folder = encoder_folder(tmp_path / "encoder", **STILL, **kind)
    config = replace(PAPER, base=str(folder), mode=mode, epochs=1)
    model = build_initial_model(config, LABELS)
    head = model.head.classifier.weight.detach().clone()
    training, validation = equal_clips[:80], equal_clips[80:]
    recordings = Recordings(training)
    batches = plan_epoch(training, recordings.num_samples, config, epoch=0)
    targets = torch.tensor([LABELS.index(item.label) for item in training])
    expected = authors_losses(folder, batches, recordings, targets, head, mode=mode)
    losses = []
    update = Stepper.update

    def remember(self, *arguments):
        done = update(self, *arguments)
        losses.append(done.loss)
        return done

    monkeypatch.setattr(Stepper, "update", remember)
    train(training, validation, model=model, config=config, output=tmp_path / "run")
    assert len(losses) == 20
    difference = np.max(np.abs(np.array(losses) / np.array(expected) - 1.0))
    print(f"{mode}, {norm} norm: largest relative difference of 20 losses {difference:.1e}")
    assert difference < 1e-4
