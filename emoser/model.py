"""`EmotionModel`: samples (B, T) and lengths in, logits (B, C) and embeddings (B, D) out.

An encoder, the pooling of its frames, and a head. Knows nothing of files, audio formats or
what the labels mean.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from emoser.configuration import ModelConfig
from emoser.encoder import EncodedFrames, SpeechEncoder
from emoser.heads import LinearHead
from emoser.pooling import mean_pool


class EmotionOutput(NamedTuple):
    """What the model says about a batch.

    Attributes:
        logits: One row per recording, (B, C), in the order of the labels.
        embedding: The pooled encoder output that the head reads, (B, D).
    """

    logits: Tensor
    embedding: Tensor


class EmotionModel(nn.Module):
    """Encoder, pooling and head of a speech-emotion checkpoint.

    The answer for a recording does not depend on what it is batched with. Recordings shorter
    than the encoder's receptive field are padded with zeros up to it, alone or in a batch.
    """

    def __init__(self, config: ModelConfig, encoder: SpeechEncoder) -> None:
        super().__init__()
        self.config = config
        self.encoder = encoder
        self.layer_weights: nn.Parameter | None = None
        if config.layer_mix:
            num_states = encoder.num_hidden_states
            self.layer_weights = nn.Parameter(torch.full((num_states,), 1.0 / num_states))
        self.head = LinearHead(
            encoder.hidden_size, len(config.labels), projection_size=config.projection_size
        )

    def forward(self, samples: Tensor, lengths: Tensor | None = None) -> EmotionOutput:
        """Logits and embeddings of a batch.

        Args:
            samples: Mono waveforms at the model's rate, (B, T), padded at the end with anything.
            lengths: Valid samples of each, (B,); None when every row is valid to its end.
        """
        samples, lengths = self._lengthen(samples, lengths)
        frames = self.encoder(samples, lengths, all_layers=self.layer_weights is not None)
        return self.classify(frames)

    def classify(self, encoded: EncodedFrames) -> EmotionOutput:
        """Logits and embeddings of encoded frames."""
        frames = encoded.frames
        if self.layer_weights is not None:
            weights = functional.softmax(self.layer_weights, dim=-1)
            stacked = torch.stack(encoded.hidden_states)  # (N, B, L, D)
            frames = torch.einsum("n,nbld->bld", weights, stacked)
        embedding = mean_pool(frames, encoded.num_frames)
        return EmotionOutput(self.head(embedding), embedding)

    def _lengthen(self, samples: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor | None]:
        shortage = self.encoder.min_samples - samples.shape[1]
        if lengths is not None:
            valid = torch.arange(samples.shape[1], device=samples.device) < lengths[:, None]
            samples = samples.masked_fill(~valid, 0.0)
            lengths = lengths.clamp(min=self.encoder.min_samples)
        if shortage > 0:
            samples = functional.pad(samples, (0, shortage))
        return samples, lengths
