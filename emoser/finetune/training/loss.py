"""The training loss: cross-entropy with labels and teachers, dimensions, and an auxiliary task.

The softmax of a corpus that has only some of the labels runs over these, so that the model does
not learn to recognise the corpus in order to exclude the other labels. A student follows the mean
probabilities of its teachers for the same view of a clip (arXiv 1503.02531, arXiv 2106.05237).
Dimensions have the concordance of the batch (Lin 1989) or the squared error.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from emoser.finetune.config import FinetuneConfig
from emoser.finetune.data.inputs import Batch, run_model
from emoser.finetune.data.utterance import Utterance
from emoser.finetune.settings import OptimisationSettings
from emoser.finetune.training.seeding import seeded
from emoser.models.model import EmotionModel, EmotionOutput


class Targets(NamedTuple):
    """The targets of some clips.

    Attributes:
        labels: Index of the true label, (B,); 0 where there is not just one.
        allowed: The labels that the softmax runs over, (B, C), boolean; C is 0 without labels.
        statistics: Standardised statistics, (B, S); S is 0 without the auxiliary task.
        values: Dimensions on a scale of 0 to 1, (B, D); D is 0 without any.
        shares: Share of the votes for each label, or whether each applies, (B, C); (B, 0) where
            there is just one label.
    """

    labels: Tensor
    allowed: Tensor
    statistics: Tensor
    values: Tensor
    shares: Tensor

    def select(self, indices: Sequence[int]) -> "Targets":
        """The targets of some rows."""
        rows = torch.as_tensor(indices)
        return Targets(*(part[rows] for part in self))

    def to(self, device: torch.device) -> "Targets":
        """The targets on a device."""
        return Targets(*(part.to(device) for part in self))


class TrainingLoss(nn.Module):
    """The loss of a batch, with the weights of the auxiliary task."""

    def __init__(
        self,
        settings: OptimisationSettings,
        *,
        size: int,
        num_statistics: int = 0,
        class_weights: Tensor | None = None,
        multi_label: bool = False,
    ) -> None:
        """Initialise the auxiliary task from torch's global generator.

        Args:
            settings: The weights of the parts of the loss.
            size: Width of the embeddings.
            num_statistics: Number of statistics that are predicted from them.
            class_weights: Weight of each class, (C,); None for equal weights.
            multi_label: Whether labels are independent of one another.
        """
        super().__init__()
        self.multi_label = multi_label
        self.settings = settings
        self.regressor = nn.Linear(size, num_statistics) if num_statistics else None
        self.class_weights: Tensor | None
        self.register_buffer("class_weights", class_weights, persistent=False)

    def forward(
        self, output: EmotionOutput, targets: Targets, soft_targets: Tensor | None = None
    ) -> Tensor:
        """The loss of a batch, a scalar; `soft_targets` are from the teachers, (B, C)."""
        settings, num_labels = self.settings, targets.allowed.shape[1]
        logits = output.logits.float()
        parts = []
        if num_labels:
            parts.append(self._label_loss(logits[:, :num_labels], targets, soft_targets))
        if targets.values.shape[1]:
            distance = VALUE_LOSSES[settings.dimension_loss](logits[:, num_labels:], targets.values)
            parts.append(settings.dimension_weight * distance)
        if self.regressor is not None:
            predicted = self.regressor(output.embedding).float()
            distance = functional.smooth_l1_loss(predicted, targets.statistics)
            parts.append(settings.statistics_weight * distance)
        return sum(parts[1:], start=parts[0])

    def _label_loss(self, logits: Tensor, targets: Targets, soft_targets: Tensor | None) -> Tensor:
        settings, allowed = self.settings, targets.allowed
        if self.multi_label:
            smoothing = settings.label_smoothing
            smoothed = (1.0 - smoothing) * targets.shares + 0.5 * smoothing
            return functional.binary_cross_entropy_with_logits(logits[allowed], smoothed[allowed])
        loss = masked_cross_entropy(
            logits,
            targets.labels,
            allowed,
            smoothing=settings.label_smoothing,
            weights=self.class_weights,
            shares=targets.shares if targets.shares.shape[1] else None,
        )
        if soft_targets is None:
            return loss
        temperature = settings.distillation_temperature
        distilled = distillation_loss(logits, soft_targets, allowed, temperature=temperature)
        return torch.lerp(loss, distilled, settings.distillation_weight)


def build_loss(
    config: FinetuneConfig,
    targets: Targets,
    *,
    size: int,
    num_labels: int,
    multi_label: bool = False,
) -> TrainingLoss:
    """The loss for a training set; the seed determines the weights of the auxiliary task."""
    settings = config.optimisation
    balanced = balance_classes(targets.labels, num_labels) if settings.class_weights else None
    num_statistics = targets.statistics.shape[1]
    with seeded(config.run.seed, 0):
        return TrainingLoss(
            settings,
            size=size,
            num_statistics=num_statistics,
            class_weights=balanced,
            multi_label=multi_label,
        )


def masked_cross_entropy(
    logits: Tensor,
    labels: Tensor,
    allowed: Tensor,
    *,
    smoothing: float = 0.0,
    weights: Tensor | None = None,
    shares: Tensor | None = None,
) -> Tensor:
    """Mean cross-entropy whose softmax runs over the allowed labels of each row.

    Args:
        logits: (B, C).
        labels: Index of the true label, (B,).
        allowed: The labels that the softmax runs over, (B, C), boolean.
        smoothing: Part of the target that is spread over the allowed labels.
        weights: Weight of the rows of each label, (C,); None for equal weights.
        shares: The distribution over labels to learn instead of one label, (B, C).

    Example:
        >>> logits = torch.tensor([[0.0, 0.0, 9.0]])
        >>> allowed = torch.tensor([[True, True, False]])
        >>> masked_cross_entropy(logits, torch.tensor([0]), allowed)
        tensor(0.6931)
    """
    log_probabilities = _log_softmax(logits, allowed)
    if shares is None:
        hit = log_probabilities.gather(1, labels[:, None]).squeeze(1)
    else:
        hit = (shares * log_probabilities).sum(dim=1)
    spread = log_probabilities.sum(dim=1) / allowed.sum(dim=1)
    gains = (1.0 - smoothing) * hit + smoothing * spread
    return -gains.mean() if weights is None else -(gains * weights[labels]).mean()


def concordance_loss(predicted: Tensor, truth: Tensor) -> Tensor:
    """1 minus the mean concordance (CCC) of the columns of (B, D), a scalar; 1 if nothing varies.

    Example:
        >>> truth = torch.tensor([[0.0], [1.0]])
        >>> concordance_loss(truth + 1.0, truth)
        tensor(0.6667)
    """
    centred, wanted = predicted - predicted.mean(dim=0), truth - truth.mean(dim=0)
    gap = predicted.mean(dim=0) - truth.mean(dim=0)
    spread = (centred**2).mean(dim=0) + (wanted**2).mean(dim=0) + gap**2
    smallest = torch.finfo(spread.dtype).tiny
    return 1.0 - (2.0 * (centred * wanted).mean(dim=0) / spread.clamp(min=smallest)).mean()


VALUE_LOSSES: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "ccc": concordance_loss,
    "mse": functional.mse_loss,
}


def balance_classes(labels: Tensor, num_labels: int) -> Tensor:
    """Weights of classes by 1 over their frequency, with mean 1 over the rows, (C,).

    Example:
        >>> balance_classes(torch.tensor([0, 0, 0, 1]), 3)
        tensor([0.6667, 2.0000, 0.0000])
    """
    counts = torch.bincount(labels, minlength=num_labels).float()
    present = counts > 0
    return present * len(labels) / (present.sum() * counts.clamp(min=1))


def build_targets(
    utterances: Sequence[Utterance],
    labels: Sequence[str],
    *,
    restricted: Mapping[str, Sequence[str]],
    statistics: Tensor | None = None,
    dimensions: Sequence[str] = (),
    multi_label: bool = False,
) -> Targets:
    """Targets of all utterances.

    Args:
        utterances: Utterances with labels or votes, dimensions on a stated scale, or both.
        labels: Labels of the model in the order of its logits.
        restricted: Labels of each corpus that has only some of them.
        statistics: Targets of the auxiliary task, (N, S).
        dimensions: Dimensions of the model in the order of its outputs.
        multi_label: Whether its labels are independent of one another.

    Raises:
        ValueError: Naming all labels that the model, or the restriction of a corpus, lacks.
    """
    choices = [set(restricted.get(item.corpus or "", labels)) for item in utterances]
    unknown = {
        f"{label or 'nothing'} ({item.corpus or 'no corpus'})"
        for item, choice in zip(utterances, choices, strict=True)
        for label in (item.classes or ("",) * (item.labels is None))
        if labels and label not in choice.intersection(labels)
    }
    if unknown:
        raise ValueError(
            f"no target for {', '.join(sorted(unknown))}: the labels are {', '.join(labels)}, "
            f"restricted {dict(restricted)}; leave these utterances out or add the label"
        )
    plain = not any(item.votes or item.labels is not None for item in utterances)
    shared = () if plain and not multi_label else labels
    return Targets(
        torch.tensor(
            [list(labels).index(item.label) if item.label in labels else 0 for item in utterances]
        ),
        torch.tensor([[name in choice for name in labels] for choice in choices], dtype=torch.bool),
        torch.zeros(len(utterances), 0) if statistics is None else statistics,
        torch.tensor([[item.value(name) for name in dimensions] for item in utterances]),
        torch.tensor([[item.share(label) for label in shared] for item in utterances]),
    )


class Teachers:
    """Trained models whose mean probabilities a student follows."""

    def __init__(
        self, models: Sequence[EmotionModel], labels: Sequence[str], *, temperature: float
    ) -> None:
        """Put the models into eval mode; the temperature divides their logits.

        Raises:
            ValueError: If one has not the labels of the student in the same order.
        """
        for number, model in enumerate(models, start=1):
            if tuple(model.config.labels) != tuple(labels):
                raise ValueError(
                    f"teacher {number} has the labels {', '.join(model.config.labels)}, the "
                    f"student {', '.join(labels)}; both need the same ones in the same order"
                )
        self.models = [model.eval() for model in models]
        self.temperature = temperature

    def to(self, device: torch.device) -> "Teachers":
        """Move the models to a device."""
        for model in self.models:
            model.to(device)
        return self

    @torch.no_grad()
    def predict(self, batch: Batch, allowed: Tensor) -> Tensor:
        """Mean of their softened probabilities over the allowed labels, (B, C)."""
        logits = [run_model(model, batch).logits for model in self.models]
        return torch.stack([soften(rows, allowed, self.temperature) for rows in logits]).mean(dim=0)

    def digest(self) -> str:
        """A hash of the weights, 16 hexadecimal digits."""
        digest = hashlib.sha256()
        for model in self.models:
            for name, tensor in sorted(model.state_dict().items()):
                digest.update(name.encode())
                digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]


def soften(logits: Tensor, allowed: Tensor, temperature: float) -> Tensor:
    """Probabilities of logits over a temperature, among the allowed labels, (B, C)."""
    masked = logits.float().masked_fill(~allowed, float("-inf"))
    return functional.softmax(masked / temperature, dim=-1)


def distillation_loss(
    logits: Tensor, soft_targets: Tensor, allowed: Tensor, *, temperature: float
) -> Tensor:
    """Cross-entropy of the student's softened probabilities with those of teachers, a scalar.

    Times the square of the temperature, which keeps the size of the gradients (arXiv 1503.02531).

    Args:
        logits: Logits of the student, (B, C).
        soft_targets: Softened probabilities, 0 where a label is not allowed, (B, C).
        allowed: The labels that the softmax runs over, (B, C), boolean.
        temperature: Temperature of `soft_targets`.

    Example:
        >>> allowed = torch.tensor([[True, True]])
        >>> soft_targets = torch.tensor([[0.5, 0.5]])
        >>> distillation_loss(torch.zeros(1, 2), soft_targets, allowed, temperature=2.0)
        tensor(2.7726)
    """
    products = soft_targets * _log_softmax(logits.float() / temperature, allowed)
    return -(temperature**2) * products.sum(dim=1).mean()


def _log_softmax(logits: Tensor, allowed: Tensor) -> Tensor:
    """Logarithms of probabilities among the allowed labels, and 0 for all others, (B, C)."""
    masked = logits.masked_fill(~allowed, float("-inf"))
    return functional.log_softmax(masked, dim=-1).masked_fill(~allowed, 0.0)
