"""What a model needs to know of one speaker: a shift of its logits."""

from dataclasses import dataclass, replace

from emoser.models.config import ModelConfig


@dataclass(frozen=True)
class Adaptation:
    """An adaptation to one speaker.

    Attributes:
        shift: Subtracted from the logits of every recording, one for each label.
        num_recordings: The speaker's recordings that it was computed from.
    """

    shift: tuple[float, ...]
    num_recordings: int

    def mark(self, config: ModelConfig) -> ModelConfig:
        """The configuration of the model with this adaptation."""
        return replace(config, adapted_recordings=self.num_recordings)
