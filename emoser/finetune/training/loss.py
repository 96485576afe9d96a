"""What training minimises: cross-entropy, with labels or teachers, and clip statistics beside it.

A corpus that has only some of the labels is scored among these alone, so that the model does
not learn "sounds like this corpus, so one of its labels". Works on tensors; knows nothing of
files or of the encoder.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from emoser.finetune.data.utterance import Utterance
from emoser.finetune.training.distillation import distillation_loss
from emoser.models.model import EmotionOutput


class Targets(NamedTuple):
    """What a batch should give, and where.

    Attributes:
        labels: Index of the true label, (B,).
        allowed: The labels that the softmax runs over, (B, C), boolean.
        statistics: Standardised statistics, (B, S); S is 0 without the second task.
    """

    labels: Tensor
    allowed: Tensor
    statistics: Tensor

    def select(self, indices: Sequence[int]) -> "Targets":
        """The targets of some rows."""
        rows = torch.as_tensor(indices)
        return Targets(self.labels[rows], self.allowed[rows], self.statistics[rows])

    def to(self, device: torch.device) -> "Targets":
        """The same on a device."""
        return Targets(*(part.to(device) for part in self))


class Objective(nn.Module):
    """The loss of a batch; holds the weights of the second task, which only training needs."""

    def __init__(
        self,
        size: int,
        num_statistics: int,
        *,
        statistics_weight: float,
        smoothing: float,
        class_weights: Tensor | None = None,
        distillation_weight: float = 0.0,
        distillation_temperature: float = 1.0,
    ) -> None:
        """Build it.

        Args:
            size: Width of the embeddings.
            num_statistics: How many statistics are predicted from them.
            statistics_weight: Weight of that task.
            smoothing: Part of the target spread over the allowed labels.
            class_weights: How much each class counts, (C,), None for all alike.
            distillation_weight: Part of the loss that follows the teachers, where there are any;
                the rest follows the labels.
            distillation_temperature: That of the teachers' probabilities.
        """
        super().__init__()
        self.regressor = nn.Linear(size, num_statistics) if num_statistics else None
        self.statistics_weight = statistics_weight
        self.smoothing = smoothing
        self.distillation_weight = distillation_weight
        self.distillation_temperature = distillation_temperature
        self.class_weights: Tensor | None
        self.register_buffer("class_weights", class_weights, persistent=False)

    def forward(
        self, output: EmotionOutput, targets: Targets, taught: Tensor | None = None
    ) -> Tensor:
        """The loss of a batch, a scalar; `taught` is what the teachers answered, (B, C)."""
        loss = masked_cross_entropy(
            output.logits.float(),
            targets.labels,
            targets.allowed,
            smoothing=self.smoothing,
            weights=self.class_weights,
        )
        if taught is not None:
            following = distillation_loss(
                output.logits, taught, targets.allowed, temperature=self.distillation_temperature
            )
            loss = torch.lerp(loss, following, self.distillation_weight)
        if self.regressor is None:
            return loss
        guess = self.regressor(output.embedding).float()
        distance = functional.smooth_l1_loss(guess, targets.statistics)
        return loss + self.statistics_weight * distance


def masked_cross_entropy(
    logits: Tensor,
    labels: Tensor,
    allowed: Tensor,
    *,
    smoothing: float = 0.0,
    weights: Tensor | None = None,
) -> Tensor:
    """Mean cross-entropy whose softmax runs over the allowed labels of each row.

    With weights (C,), each row counts by the weight of its label.

    Example:
        >>> logits = torch.tensor([[0.0, 0.0, 9.0]])
        >>> allowed = torch.tensor([[True, True, False]])
        >>> masked_cross_entropy(logits, torch.tensor([0]), allowed)
        tensor(0.6931)
    """
    log_probabilities = functional.log_softmax(
        logits.masked_fill(~allowed, float("-inf")), dim=-1
    ).masked_fill(~allowed, 0.0)
    hit = log_probabilities.gather(1, labels[:, None]).squeeze(1)
    spread = log_probabilities.sum(dim=1) / allowed.sum(dim=1)
    gains = (1.0 - smoothing) * hit + smoothing * spread
    return -gains.mean() if weights is None else -(gains * weights[labels]).mean()


def balance_classes(labels: Tensor, num_labels: int) -> Tensor:
    """Weights of classes by 1 over their frequency, with mean 1 over the rows, (C,).

    Example:
        >>> balance_classes(torch.tensor([0, 0, 0, 1]), 3)
        tensor([0.6667, 2.0000, 0.0000])
    """
    counts = torch.bincount(labels, minlength=num_labels).float()
    present = counts > 0
    weights = len(labels) / (present.sum() * counts.clamp(min=1))
    return torch.where(present, weights, torch.zeros_like(weights))


def build_targets(
    utterances: Sequence[Utterance],
    labels: Sequence[str],
    *,
    restricted: Mapping[str, Sequence[str]],
    statistics: Tensor | None = None,
) -> Targets:
    """Targets of all utterances.

    Raises:
        ValueError: If an utterance has a label that the model, or its corpus' restriction,
            does not; all such labels in one message.
    """
    choices = {corpus: set(names) for corpus, names in restricted.items()}
    everything = set(labels)
    strange = {
        f"{item.label} ({item.corpus or 'no corpus'})"
        for item in utterances
        if item.label not in choices.get(item.corpus or "", everything) & everything
    }
    if strange:
        raise ValueError(
            f"no target for {', '.join(sorted(strange))}: the labels are {', '.join(labels)}, "
            f"restricted {dict(restricted)}; leave these utterances out or add the label"
        )
    index = {label: position for position, label in enumerate(labels)}
    allowed = torch.tensor(
        [[name in choices.get(item.corpus or "", everything) for name in labels]
         for item in utterances]
    )  # fmt: skip
    if statistics is None:
        statistics = torch.zeros(len(utterances), 0)
    return Targets(torch.tensor([index[item.label] for item in utterances]), allowed, statistics)
