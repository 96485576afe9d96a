"""`EmotionModel`: an encoder, pooling and a head.

Maps samples (B, T) with lengths to logits (B, C) and embeddings (B, D).
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from emoser.models.config import ModelConfig
from emoser.models.encoder import EncodedFrames, SpeechEncoder
from emoser.models.heads import build_head, build_pointwise
from emoser.models.pooling import (
    AttentiveStatistics,
    frame_mask,
    max_pool,
    mean_pool,
    normalize_frames,
    statistics_pool,
    sum_pool,
)
from emoser.models.training_stage import TrainingStage

POOLERS: Mapping[str, Callable[[Tensor, Tensor | None], Tensor]] = {
    "mean": mean_pool,
    "sum": sum_pool,
    "max": max_pool,
    "frames": mean_pool,
    "statistics": statistics_pool,
}


class EmotionOutput(NamedTuple):
    """The output of a model for a batch.

    Attributes:
        logits: One row per recording, (B, C), in the order of the labels; dimensions follow.
        embedding: The pooled encoder output that the head reads, (B, D).
    """

    logits: Tensor
    embedding: Tensor


class FrameLogits(NamedTuple):
    """The output of a model that classifies frames.

    Attributes:
        logits: (B, L, C), in the order of the labels; one frame every `config.frame_seconds`.
        num_frames: Valid frames of each recording, (B,); None if all L are valid.
    """

    logits: Tensor
    num_frames: Tensor | None


class EmotionModel(nn.Module):
    """Encoder, pooling and head of a speech-emotion checkpoint.

    The output for a recording does not depend on the rest of its batch. Recordings shorter than
    the encoder's receptive field are padded with zeros to it, alone or in a batch.

    Attributes:
        config: What surrounds the encoder.
        encoder: The encoder.
        trained_on: What it, its bases and its teachers were trained on, as far as it is stated.
    """

    def __init__(self, config: ModelConfig, encoder: SpeechEncoder) -> None:
        super().__init__()
        self.config = config
        self.encoder = encoder
        self.trained_on: tuple[TrainingStage, ...] = ()
        self.layer_weights: nn.Parameter | None = None
        if config.layer_mix:
            num_states = encoder.num_hidden_states
            self.layer_weights = nn.Parameter(torch.full((num_states,), 1.0 / num_states))
        size = encoder.hidden_size
        self.pointwise: nn.Module | None = build_pointwise(config, size)
        if self.pointwise is not None and config.projection_size is not None:
            size = config.projection_size
        self.pooler: AttentiveStatistics | None = None
        if config.pooling == "attentive-statistics":
            self.pooler = AttentiveStatistics(size)
        if config.pooling in ("statistics", "attentive-statistics"):
            size = 2 * size
        self.embedding_size = size
        self.head = build_head(config, size)

    def forward(self, samples: Tensor, lengths: Tensor | None = None) -> EmotionOutput:
        """Logits and embeddings of a batch.

        Args:
            samples: Mono waveforms at the model's rate, (B, T), padded at the end with any values.
            lengths: Valid samples of each, (B,); None if every row is valid to its end.
        """
        return self.classify(self.encode(samples, lengths))

    def classify(self, encoded: EncodedFrames) -> EmotionOutput:
        """Logits and embeddings of encoded frames."""
        frames, num_frames = self._finish(encoded), encoded.num_frames
        pool = self.pooler or POOLERS[self.config.pooling]
        embedding = pool(frames, num_frames)
        if self.config.pooling == "frames":
            return EmotionOutput(_mean_probability(self.head(frames), num_frames), embedding)
        return EmotionOutput(self.head(embedding), embedding)

    def classify_frames(self, samples: Tensor, lengths: Tensor | None = None) -> FrameLogits:
        """Logits of every frame, if the model has `config.frame_seconds`.

        Raises:
            ValueError: If the model does not classify frames.
        """
        if self.config.frame_seconds is None:
            raise ValueError(
                f"this model pools by {self.config.pooling!r} and has no outputs for single frames"
            )
        encoded = self.encode(samples, lengths)
        return FrameLogits(self.label_frames(encoded), encoded.num_frames)

    def label_frames(self, encoded: EncodedFrames) -> Tensor:
        """Logits of every encoded frame, (B, L, C)."""
        logits: Tensor = self.head(self._finish(encoded))
        return logits

    def encode(self, samples: Tensor, lengths: Tensor | None = None) -> EncodedFrames:
        """Encoded frames of a batch, the input of `classify`."""
        samples, lengths = self.lengthen(samples, lengths)
        return self.encoder(samples, lengths, all_layers=self.layer_weights is not None)  # type: ignore[no-any-return]

    def _finish(self, encoded: EncodedFrames) -> Tensor:
        """Frames before pooling, (B, L, D)."""
        frames = encoded.frames
        if self.layer_weights is not None:
            weights = functional.softmax(self.layer_weights, dim=-1)
            stacked = torch.stack(encoded.hidden_states)  # (N, B, L, D)
            frames = torch.einsum("n,nbld->bld", weights, stacked)
        if self.config.output_norm:
            frames = normalize_frames(frames, encoded.num_frames)
        return frames if self.pointwise is None else self.pointwise(frames)

    def lengthen(self, samples: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Samples (B, T) and lengths (B,) of at least one frame; zeros follow the valid samples."""
        shortage = self.encoder.min_samples - samples.shape[1]
        if lengths is not None:
            valid = torch.arange(samples.shape[1], device=samples.device) < lengths[:, None]
            samples = samples.masked_fill(~valid, 0.0)
            lengths = lengths.clamp(min=self.encoder.min_samples)
        if shortage > 0:
            samples = functional.pad(samples, (0, shortage))
        return samples, lengths


def _mean_probability(logits: Tensor, num_frames: Tensor | None) -> Tensor:
    """Logarithm of the mean probability over the valid frames, (B, L, C) -> (B, C)."""
    log_probabilities = logits.log_softmax(dim=-1)
    if num_frames is None:
        count = torch.ones_like(logits[:, :, :1]).sum(dim=1)  # as a tensor, for exported graphs
        return log_probabilities.logsumexp(dim=1) - count.log()
    mask = frame_mask(num_frames, logits.shape[1]).unsqueeze(-1)
    summed = log_probabilities.masked_fill(~mask, float("-inf")).logsumexp(dim=1)
    return summed - num_frames.to(summed.dtype).log().unsqueeze(-1)
