"""Learning from other models: what they answer to the clips of a batch, as soft targets.

A student that hears what its teachers hear, cropped and varied alike, and follows the mean of
their probabilities, keeps much of what they know together (arXiv 1503.02531, section 2; arXiv
2106.05237 for the same view of a clip). Works on batches; knows nothing of files.
"""

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from emoser.finetune.data.inputs import Batch, run_model
from emoser.models.model import EmotionModel


class Teachers:
    """Trained models that answer and do not learn."""

    def __init__(
        self, models: Sequence[EmotionModel], labels: Sequence[str], *, temperature: float
    ) -> None:
        """Take them as they are; they are moved to the device of the training and put in eval mode.

        Args:
            models: At least one.
            labels: Of the student, in its order.
            temperature: Logits are divided by it.

        Raises:
            ValueError: If there is none, or one of them has other labels or another order.
        """
        if not models:
            raise ValueError("there is no teacher")
        for number, model in enumerate(models, start=1):
            if tuple(model.config.labels) != tuple(labels):
                raise ValueError(
                    f"teacher {number} has the labels {', '.join(model.config.labels)}, the "
                    f"student {', '.join(labels)}; both need the same ones in the same order"
                )
        self.models = [model.eval() for model in models]
        self.temperature = temperature

    def to(self, device: torch.device) -> "Teachers":
        """Themselves, on a device."""
        for model in self.models:
            model.to(device)
        return self

    @torch.no_grad()
    def answer(self, batch: Batch, allowed: Tensor) -> Tensor:
        """Mean of their softened probabilities among the allowed labels, (B, C)."""
        answers = [run_model(model, batch).logits for model in self.models]
        return torch.stack([soften(logits, allowed, self.temperature) for logits in answers]).mean(
            dim=0
        )

    def digest(self) -> str:
        """A short name for exactly these weights."""
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
    logits: Tensor, taught: Tensor, allowed: Tensor, *, temperature: float
) -> Tensor:
    """Cross-entropy of the student's softened probabilities with the taught ones, a scalar.

    Times the square of the temperature, so that its gradients keep their size (arXiv 1503.02531).

    Args:
        logits: Of the student, (B, C).
        taught: Softened probabilities, 0 where a label is not allowed, (B, C).
        allowed: The labels that the softmax runs over, (B, C), boolean.
        temperature: That of `taught`.

    Example:
        >>> allowed = torch.tensor([[True, True]])
        >>> taught = torch.tensor([[0.5, 0.5]])
        >>> distillation_loss(torch.zeros(1, 2), taught, allowed, temperature=2.0)
        tensor(2.7726)
    """
    masked = logits.float().masked_fill(~allowed, float("-inf"))
    log_probabilities = functional.log_softmax(masked / temperature, dim=-1)
    products = taught * log_probabilities.masked_fill(~allowed, 0.0)
    return -(temperature**2) * products.sum(dim=1).mean()
