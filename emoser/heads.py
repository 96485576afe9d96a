"""From a pooled vector (B, D) to logits (B, C).

Knows nothing of frames, encoders or label names.
"""

from torch import Tensor, nn


class LinearHead(nn.Module):
    """One linear layer, after a linear projection where `projection_size` is given.

    Mean pooling commutes with linear maps, so the projection, which transformers applies to
    every frame, is applied once to the pooled vector: the same numbers for less work.
    """

    def __init__(self, size: int, num_labels: int, *, projection_size: int | None = None) -> None:
        super().__init__()
        self.projector = None if projection_size is None else nn.Linear(size, projection_size)
        self.classifier = nn.Linear(projection_size or size, num_labels)

    def forward(self, pooled: Tensor) -> Tensor:
        """Logits (B, C) of pooled vectors (B, D)."""
        if self.projector is not None:
            pooled = self.projector(pooled)
        logits: Tensor = self.classifier(pooled)
        return logits
