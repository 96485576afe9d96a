"""Distillation and the loss of dimensions.

The mean of the teachers is followed on the student's clips, beside the labels.
"""

from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch
from scipy.special import softmax
from support.models import LABELS, random_clips, small_config
from torch.nn import functional
from transformers import Wav2Vec2Config

from emoser.checkpoints.save import build_model
from emoser.errors import CheckpointError
from emoser.finetune import FinetuneConfig, Utterance, train
from emoser.finetune.config import Augmentation
from emoser.finetune.data.batches import collate
from emoser.finetune.data.inputs import Batch
from emoser.finetune.training.loss import Teachers, concordance_loss, distillation_loss
from emoser.metrics import concordance
from emoser.models.config import ModelConfig

CONFIG = FinetuneConfig(
    epochs=2,
    batch_size=4,
    encoder_learning_rate=1e-3,
    head_learning_rate=1e-2,
    mode="entire",
    masking=False,
    distillation_weight=1.0,
    distillation_temperature=2.0,
    selection="last",
    seed=3,
)


def small_model(seed, labels=LABELS):
    return build_model(small_config(Wav2Vec2Config), ModelConfig(labels=labels), seed=seed)


def confident(seed):
    """A model whose probabilities are far from uniform."""
    model = small_model(seed)
    with torch.no_grad():
        model.head.classifier.weight.mul_(8.0)
    return model


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    utterances = []
    for index, clip in enumerate(random_clips([4_000 + 300 * i for i in range(18)])):
        path = folder / f"{index}.wav"
        soundfile.write(path, clip, 16_000)
        speaker = "b" if index % 3 == 2 else "a"
        utterances.append(Utterance(str(path), LABELS[index % 4], speaker=speaker))
    return utterances


@pytest.fixture(scope="module")
def sides(clips):
    return [item for item in clips if item.speaker == "a"], [
        item for item in clips if item.speaker == "b"
    ]


def weights_of(model):
    return torch.cat([tensor.flatten().double() for tensor in model.state_dict().values()])


def learn(sides, folder, *, config=CONFIG, teachers=(), seed=0):
    student = small_model(seed)
    train(*sides, model=student, config=config, output=folder, device="cpu", teachers=teachers)
    return student


def divergence(logits, wanted):
    """Of a student's probabilities from the wanted ones, in nats."""
    return functional.kl_div(functional.log_softmax(logits, -1), wanted, reduction="batchmean")


def test_the_gradient_is_that_of_the_divergence_times_the_squared_temperature():
    generator = torch.Generator().manual_seed(0)
    first = torch.randn(5, 4, generator=generator, requires_grad=True)
    second = first.detach().clone().requires_grad_()
    taught = functional.softmax(torch.randn(5, 4, generator=generator), dim=-1)
    allowed = torch.ones(5, 4, dtype=torch.bool)
    distillation_loss(first, taught, allowed, temperature=3.0).backward()
    guesses = functional.log_softmax(second / 3.0, dim=-1)
    (9.0 * functional.kl_div(guesses, taught, reduction="batchmean")).backward()
    torch.testing.assert_close(first.grad, second.grad)


def test_labels_that_a_corpus_does_not_have_are_not_distilled():
    logits = torch.tensor([[1.0, 2.0, 50.0]], requires_grad=True)
    allowed = torch.tensor([[True, True, False]])
    taught = torch.tensor([[0.25, 0.75, 0.0]])
    loss = distillation_loss(logits, taught, allowed, temperature=1.0)
    loss.backward()
    expected = -(taught[0, :2] * functional.log_softmax(logits[0, :2], dim=0)).sum()
    torch.testing.assert_close(loss, expected)
    assert logits.grad[0, 2] == 0.0


def test_the_soft_targets_are_the_mean_of_softened_probabilities():
    models = [confident(1), confident(2)]
    samples, lengths = collate(random_clips([5_000, 7_000, 4_000]))
    allowed = torch.ones(3, 4, dtype=torch.bool)
    allowed[2, 0] = False
    soft = Teachers(models, LABELS, temperature=2.0).predict(
        Batch("waveforms", samples, lengths), allowed
    )
    with torch.no_grad():
        logits = [model.eval()(samples, lengths).logits.double().numpy() for model in models]
    masked = [np.where(allowed.numpy(), rows / 2.0, -np.inf) for rows in logits]
    expected = np.mean([softmax(rows, axis=1) for rows in masked], axis=0)
    np.testing.assert_allclose(soft.numpy(), expected, atol=1e-6)
    assert soft[2, 0] == 0.0


@pytest.mark.slow
def test_at_full_weight_the_student_follows_its_teacher_and_labels_do_not_matter(sides, tmp_path):
    teacher = confident(7)
    before = weights_of(teacher)
    config = replace(CONFIG, epochs=20, crop_seconds=None, augmentation=Augmentation.off())
    student = learn(sides, tmp_path / "labels", config=config, teachers=[teacher])
    turned = {label: LABELS[(LABELS.index(label) + 1) % 4] for label in LABELS}
    wrong = [replace(item, label=turned[item.label]) for item in sides[0]]
    other = learn((wrong, sides[1]), tmp_path / "wrong", config=config, teachers=[teacher])
    assert torch.equal(weights_of(student), weights_of(other))
    assert torch.equal(weights_of(teacher), before)

    paths = [item.path for item in sides[0]]
    batch = collate([soundfile.read(path, dtype="float32")[0] for path in paths])
    with torch.no_grad():
        wanted = functional.softmax(teacher(*batch).logits, dim=-1)
        distances = [
            divergence(model.eval()(*batch).logits, wanted) for model in (small_model(0), student)
        ]
    assert distances[1] < 0.1 * distances[0]


def test_at_no_weight_the_run_ends_as_without_teachers(sides, tmp_path):
    config = replace(CONFIG, distillation_weight=0.0)
    with_teacher = learn(sides, tmp_path / "with", config=config, teachers=[confident(7)])
    without = learn(sides, tmp_path / "without", config=config)
    assert torch.equal(weights_of(with_teacher), weights_of(without))


def test_kept_features_give_way_to_the_waveforms_that_teachers_need(sides, tmp_path):
    config = replace(
        CONFIG, mode="frozen", crop_seconds=None, augmentation=Augmentation.off(), cache="float32"
    )
    kept = learn(sides, tmp_path / "kept", config=config, teachers=[confident(7)])
    off = replace(config, cache="off")
    plain = learn(sides, tmp_path / "off", config=off, teachers=[confident(7)])
    assert torch.equal(weights_of(kept), weights_of(plain))


def test_a_run_is_resumed_with_the_same_teachers_only(sides, tmp_path):
    learn(sides, tmp_path, teachers=[confident(7)])
    learn(sides, tmp_path, teachers=[confident(7)])
    for teachers in ([confident(8)], [confident(7), confident(8)], []):
        with pytest.raises(CheckpointError, match="other settings or recordings"):
            learn(sides, tmp_path, teachers=teachers)
    config = replace(CONFIG, distillation_weight=0.9)
    with pytest.raises(CheckpointError, match="other settings or recordings"):
        learn(sides, tmp_path, config=config, teachers=[confident(7)])


def test_a_teacher_with_other_labels_is_refused(sides, tmp_path):
    other = small_model(1, labels=(*LABELS[1:], LABELS[0]))
    with pytest.raises(ValueError, match="teacher 2 has the labels"):
        learn(sides, tmp_path, teachers=[small_model(1), other])


@pytest.mark.parametrize(
    "changes", [{"distillation_weight": 1.1}, {"distillation_temperature": 0.0}]
)
def test_settings_out_of_range_are_refused(changes):
    with pytest.raises(ValueError, match=next(iter(changes))):
        replace(CONFIG, **changes)


def test_the_loss_of_dimensions_is_one_minus_their_mean_concordance():
    generator = torch.Generator().manual_seed(1)
    predicted, truth = torch.randn(2, 9, 3, generator=generator, dtype=torch.float64)
    pairs = zip(truth.T.numpy(), predicted.T.numpy(), strict=True)
    expected = 1.0 - np.mean([concordance(*pair) for pair in pairs])
    assert float(concordance_loss(predicted, truth)) == pytest.approx(expected, abs=1e-12)


def test_the_gradient_of_the_concordance_is_that_of_finite_differences():
    generator = torch.Generator().manual_seed(2)
    predicted, truth = torch.randn(2, 6, 2, generator=generator, dtype=torch.float64)
    predicted.requires_grad_()
    assert torch.autograd.gradcheck(lambda values: concordance_loss(values, truth), predicted)


def test_a_batch_without_variation_has_a_finite_gradient():
    predicted = torch.full((3, 1), 0.5, requires_grad=True)
    concordance_loss(predicted, torch.full((3, 1), 0.5)).backward()
    assert torch.equal(predicted.grad, torch.zeros(3, 1))
