"""Training and evaluation on synthetic voices: learning, refusals, and exact continuation."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from support.models import LABELS, random_clips
from support.voices import RATE, voice_config, write_voices
from transformers import HubertForSequenceClassification

from emoser import EmotionClassifier
from emoser.checkpoints.save import build_model, load_model, save_model
from emoser.errors import CheckpointError
from emoser.finetune import FinetuneConfig, Utterance, evaluate, finetune, train
from emoser.finetune.config import Augmentation
from emoser.finetune.scoring.evaluation import score_logits
from emoser.finetune.settings import OptimisationSettings
from emoser.finetune.training import run as engine
from emoser.finetune.training.loss import TrainingLoss, build_targets, masked_cross_entropy
from emoser.models.config import ModelConfig
from emoser.models.model import EmotionOutput

CONFIG = FinetuneConfig(
    epochs=2,
    batch_size=4,
    encoder_learning_rate=2e-3,
    head_learning_rate=2e-3,
    mode="entire",
    crop_seconds=0.4,
    statistics_weight=0.5,
    augmentation=Augmentation(noise_decibels=(20.0, 30.0)),
    evaluation_labels=("happy", "sad"),
    ema_decay=0.5,
    save_every_steps=3,
    seed=4,
)


def small_model(**changes):
    return build_model(voice_config(**changes), ModelConfig(labels=LABELS), seed=0)


@pytest.fixture(scope="module")
def voices(tmp_path_factory):
    """Two emotions, high and low, of four voices in two corpora."""
    folder = tmp_path_factory.mktemp("voices")
    rows = write_voices(folder, 32, num_voices=4, noise=0.01, suffix=".flac")
    return [
        Utterance(str(path), label, speaker=str(voice), corpus="one" if voice < 2 else "two")
        for path, label, voice in rows
    ]


@pytest.fixture(scope="module")
def sides(voices):
    held_out = ("1", "3")
    return (
        [item for item in voices if item.speaker not in held_out],
        [item for item in voices if item.speaker in held_out],
    )


@pytest.fixture(scope="module")
def undisturbed(sides, tmp_path_factory):
    """A finished run, its model and its folder."""
    folder = tmp_path_factory.mktemp("undisturbed")
    model = small_model()
    result = train(*sides, model=model, config=CONFIG, output=folder)
    return result, model, folder


def weights_equal(first, second):
    return all(torch.equal(first[name], second[name]) for name in first | second)


def test_a_model_learns_two_emotions_of_unseen_speakers(sides, tmp_path):
    config = replace(CONFIG, epochs=12, ema_decay=0.0)
    result = train(*sides, model=small_model(), config=config, output=tmp_path)
    assert result.report.uar == 1.0
    assert result.epochs[-1]["loss"] < 0.6 * result.epochs[0]["loss"]


def test_the_saved_checkpoint_is_the_returned_model_for_emoser_and_for_transformers(undisturbed):
    result, model, _ = undisturbed
    loaded = load_model(result.folder)
    assert weights_equal(loaded.state_dict(), model.state_dict())
    samples = torch.from_numpy(random_clips([RATE])[0])[None]
    theirs = HubertForSequenceClassification.from_pretrained(result.folder).eval()
    with torch.inference_mode():
        ours = model(samples).logits
        expected = theirs(model.encoder.normalize(samples, None)).logits
    assert ours.numpy() == pytest.approx(expected.numpy(), abs=1e-5)


@pytest.mark.parametrize("mode", ["entire", "partial", "frozen"])
def test_a_base_of_another_rate_is_tuned_and_heard_at_it(mode, voices, tmp_path):
    base = build_model(voice_config(), ModelConfig(labels=LABELS, sampling_rate=8_000), seed=0)
    save_model(base, tmp_path / "base")
    config = CONFIG.replace(
        base=str(tmp_path / "base"), mode=mode, statistics_weight=0.0, save_every_steps=50
    )
    result = finetune(voices, config=config, output=tmp_path / "run", device="cpu")
    stated = json.loads((result.folder / "preprocessor_config.json").read_text())
    assert stated["sampling_rate"] == 8_000
    tuned = EmotionClassifier.from_pretrained(result.folder, device="cpu", backend="torch")
    assert tuned.info.sampling_rate == 8_000
    answers = [tuned.predict(item.path).label for item in voices]
    agreed = np.mean([answer == item.label for answer, item in zip(answers, voices, strict=True)])
    found = evaluate(result.folder, voices, allow_trained_on=True)
    assert found.accuracy == pytest.approx(agreed)


def test_the_report_is_that_of_evaluate(undisturbed, sides):
    result, model, _ = undisturbed
    report = evaluate(model, sides[1], labels=("happy", "sad"), allow_trained_on=True)
    assert replace(report, trained_on="") == result.report
    assert "trained on 16 of the 16 tested recordings and 2 of the 2" in report.trained_on
    assert set(report.per_corpus) == {"one", "two"}
    assert set(report.per_speaker) == {"one/1", "two/3"}
    assert json.loads(json.dumps(result.to_dict()))["report"]["uar"] == report.uar


class KilledError(Exception):
    """Stands for the end of the process."""


@pytest.mark.parametrize("step", [1, 3, 5, 7], ids="after step {}".format)
def test_a_killed_run_ends_with_the_weights_of_an_undisturbed_one(
    step, undisturbed, sides, tmp_path, monkeypatch
):
    """With 4 steps an epoch: before a first state, on one, in an epoch, in the last one."""
    result, model, _ = undisturbed
    train_step = engine._Run.train_step

    def fail(run, batch):
        if run.step == step:
            raise KilledError
        return train_step(run, batch)

    with monkeypatch.context() as patch:
        patch.setattr(engine._Run, "train_step", fail)
        with pytest.raises(KilledError):
            train(*sides, model=small_model(), config=CONFIG, output=tmp_path)
    again = small_model()
    resumed = train(*sides, model=again, config=CONFIG, output=tmp_path)
    assert weights_equal(again.state_dict(), model.state_dict())
    assert resumed.report == result.report
    machine = {"seconds": 0, "peak_bytes": 0}
    untimed = [{**record, **machine} for record in resumed.epochs]
    assert untimed == [{**record, **machine} for record in result.epochs]


def test_a_finished_run_is_not_run_again(undisturbed, sides, monkeypatch):
    result, model, folder = undisturbed
    monkeypatch.delattr(engine._Run, "train_step")
    again = small_model()
    assert train(*sides, model=again, config=CONFIG, output=folder) == result
    assert weights_equal(again.state_dict(), model.state_dict())


def test_the_state_of_another_run_is_refused(undisturbed, sides):
    _, _, folder = undisturbed
    with pytest.raises(CheckpointError, match="other settings"):
        train(*sides, model=small_model(), config=replace(CONFIG, seed=5), output=folder)


def test_a_damaged_state_is_refused(sides, tmp_path):
    config = replace(CONFIG, epochs=1)
    train(*sides, model=small_model(), config=config, output=tmp_path)
    for file in (tmp_path / "states").rglob("state.pt"):
        file.write_bytes(b"PK\x03\x04 cut short")
    with pytest.raises(CheckpointError, match="damaged"):
        train(*sides, model=small_model(), config=config, output=tmp_path)


def test_a_speaker_on_both_sides_is_refused(voices, tmp_path):
    with pytest.raises(ValueError, match="the speakers one/0, one/1"):
        train(voices, voices[:4], model=small_model(), config=CONFIG, output=tmp_path)


def test_an_empty_side_is_refused(voices, tmp_path):
    with pytest.raises(ValueError, match="0 to validate on"):
        train(voices, [], model=small_model(), config=CONFIG, output=tmp_path)


def test_labels_without_a_place_are_refused(sides, tmp_path):
    training, validation = sides
    strange = [replace(training[0], label="bored"), *training[1:]]
    with pytest.raises(ValueError, match=r"no target for bored \(one\)"):
        train(strange, validation, model=small_model(), config=CONFIG, output=tmp_path)
    config = replace(CONFIG, evaluation_labels=("sad", "angry"))
    with pytest.raises(ValueError, match="happy"):
        train(training, validation, model=small_model(), config=config, output=tmp_path)


def test_training_leaves_the_global_generators_alone(sides, tmp_path):
    torch.manual_seed(1)
    np.random.seed(1)
    expected = torch.rand(1), np.random.rand()
    torch.manual_seed(1)
    np.random.seed(1)
    config = replace(CONFIG, epochs=1)
    train(*sides, model=small_model(), config=config, output=tmp_path)
    assert (torch.rand(1), np.random.rand()) == expected


@pytest.mark.parametrize(
    ("mode", "learned"),
    [("partial", {"backbone", "head"}), ("frozen", {"head"})],
)
def test_a_mode_trains_the_parts_of_its_name(mode, learned, sides, tmp_path):
    config = replace(CONFIG, epochs=1, mode=mode)
    model = small_model()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    train(*sides, model=model, config=config, output=tmp_path)
    changed = {n for n, tensor in model.state_dict().items() if not torch.equal(tensor, before[n])}
    parts = {name.removeprefix("encoder.").split(".")[0] for name in changed}
    assert parts == learned


def test_weights_without_a_gradient_stay_in_every_mode(sides, tmp_path):
    model = small_model()
    first = model.encoder.feature_extractor.conv_layers[0].conv.weight.requires_grad_(False)
    before = first.clone()
    train(*sides, model=model, config=replace(CONFIG, epochs=1), output=tmp_path)
    assert torch.equal(first, before)


def test_a_restricted_corpus_has_no_gradient_for_the_other_labels():
    logits = torch.randn(3, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    targets = build_targets(
        [Utterance("x", "sad", corpus="half")] * 3, LABELS, restricted={"half": ("sad", "happy")}
    )
    loss = masked_cross_entropy(logits, targets.labels, targets.allowed)
    loss.backward()
    others = [LABELS.index("neutral"), LABELS.index("angry")]
    kept = [LABELS.index("happy"), LABELS.index("sad")]
    alone = torch.nn.functional.cross_entropy(logits[:, kept], torch.tensor([1, 1, 1]))
    assert float(loss.detach()) == pytest.approx(float(alone.detach()))
    assert not logits.grad[:, others].any()


def test_without_restrictions_the_loss_is_that_of_torch():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(5, 4, generator=generator)
    labels = torch.tensor([0, 1, 2, 3, 1])
    allowed = torch.ones(5, 4, dtype=torch.bool)
    for smoothing in (0.0, 0.2):
        expected = torch.nn.functional.cross_entropy(logits, labels, label_smoothing=smoothing)
        loss = masked_cross_entropy(logits, labels, allowed, smoothing=smoothing)
        assert float(loss) == pytest.approx(float(expected), rel=1e-5)


def test_the_second_task_is_added_with_its_weight():
    targets = build_targets(
        [Utterance("x", "sad")], LABELS, restricted={}, statistics=torch.tensor([[2.0, 0.0]])
    )
    loss = TrainingLoss(OptimisationSettings(statistics_weight=0.5), size=3, num_statistics=2)
    torch.nn.init.zeros_(loss.regressor.weight)
    torch.nn.init.zeros_(loss.regressor.bias)
    found = loss(EmotionOutput(torch.zeros(1, 4), torch.zeros(1, 3)), targets)
    assert float(found.detach()) == pytest.approx(np.log(4) + 0.5 * 0.5 * 1.5)


def test_scores_decide_between_the_chosen_labels_alone():
    utterances = [Utterance("x", "sad", speaker="a"), Utterance("y", "happy", speaker="b")]
    logits = np.array([[9.0, 0.0, 0.0, 1.0], [9.0, 2.0, 5.0, 1.0]], dtype=np.float32)
    report = score_logits(logits, utterances, LABELS, labels=("happy", "sad"))
    assert report.accuracy == report.uar == report.macro_f1 == 1.0
    assert report.confusion == ((1, 0), (0, 1))
    assert report.per_speaker == {"a": 1.0, "b": 1.0}
    assert "UAR 1.000" in str(report)
