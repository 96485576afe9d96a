"""Treatment of padding: exact, or that of the authors' code in 2021 or today.

All three are equal for a single clip. In a batch, the authors' code of October 2021 normalised
over all clips together without a mask; since January 2023 it normalises each clip including its
padding, with a mask.
"""

import torch
from torch import Tensor
from torch.nn import functional

from emoser.models.encoder import SpeechEncoder
from emoser.models.model import EmotionModel, EmotionOutput
from emoser.models.pooling import frame_mask, mean_pool


def check_padding(model: EmotionModel, padding: str) -> None:
    """Check that an encoder can be computed with a treatment of padding.

    Raises:
        ValueError: If it has no convolutions over samples, as in the authors' code.
    """
    if padding != "exact" and type(model.encoder) is not SpeechEncoder:
        raise ValueError(
            f"padding {padding!r} is that of wav2vec 2.0 and its kind, and this encoder is "
            f"{model.config.encoder!r}; use padding='exact' (--wrapper exact)"
        )


def forward_batch(
    model: EmotionModel, samples: Tensor, lengths: Tensor, *, padding: str
) -> EmotionOutput:
    """Logits and embeddings of a padded batch.

    Args:
        model: Needs a linear head on the mean of the last layer, unless `padding` is "exact".
        samples: Waveforms padded with zeros, (B, T).
        lengths: Valid samples of each, (B,).
        padding: "exact", "paper" (2021) or "today".
    """
    if padding == "exact":
        output: EmotionOutput = model(samples, lengths)
        return output
    together = padding == "paper"
    encoder = model.encoder
    if encoder.normalization != "none":
        shape = samples.shape if together else samples.shape[1:]
        samples = functional.layer_norm(samples, shape)
    mask = None if together else frame_mask(lengths, samples.shape[1])
    features = encoder.feature_extractor(samples)
    frames = encoder.backbone(features, attention_mask=mask).last_hidden_state  # (B, L, D)
    if model.config.output_norm:
        shape = frames.shape if together else frames.shape[1:]
        frames = functional.layer_norm(frames, shape)
    num_frames = torch.round(lengths / samples.shape[1] * frames.shape[1]).long().clamp(min=1)
    embedding = mean_pool(frames, num_frames)
    return EmotionOutput(model.head(embedding), embedding)
