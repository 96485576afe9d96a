"""A HuggingFace speech encoder, made exact under padding.

Takes samples (B, T) with lengths and gives frames (B, L, D) with lengths, such that the valid
frames of a recording are the same numbers in every batch, up to float rounding. Two things in
transformers prevent that: the input normalisation of padded rows, and the group norm of the
first convolution (wav2vec2-base, hubert-base), whose statistics run over time and so over the
padding. Here both see the valid part alone. Knows nothing of labels, heads or files.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from emoser import torchaudio_guard  # noqa: F401  # before the first import of transformers
from emoser.pooling import frame_mask

VARIANCE_FLOOR = 1e-7  # that of transformers' Wav2Vec2FeatureExtractor


class EncodedFrames(NamedTuple):
    """What the encoder heard.

    Attributes:
        frames: Output of the last layer, (B, L, D).
        num_frames: Valid frames of each recording, (B,), or None when all L are valid.
        hidden_states: Input of the first layer and output of every layer, (B, L, D) each,
            when they were asked for.
    """

    frames: Tensor
    num_frames: Tensor | None
    hidden_states: tuple[Tensor, ...]


class PrecomputedFeatures(nn.Module):
    """Stands where transformers has its convolutions, which have already run."""

    def forward(self, features: Tensor) -> Tensor:
        """The features as they came, (B, D, L)."""
        return features


class SpeechEncoder(nn.Module):
    """An encoder of the wav2vec 2.0 kind (Wav2Vec2Model, HubertModel, WavLMModel, ...).

    The convolutions and the transformer are two steps, `extract_features` and `contextualize`,
    so that frozen convolutions need to run only once.
    """

    def __init__(self, backbone: nn.Module, *, normalization: str = "clip") -> None:
        super().__init__()
        self.feature_extractor: nn.Module = backbone.feature_extractor  # type: ignore[assignment]
        backbone.feature_extractor = PrecomputedFeatures()
        self.backbone = backbone
        self.normalization = normalization
        self.config = backbone.config

    @property
    def hidden_size(self) -> int:
        """Width D of a frame."""
        return int(self.config.hidden_size)  # type: ignore[union-attr, arg-type]

    @property
    def num_hidden_states(self) -> int:
        """How many hidden states there are: one per layer and the input of the first."""
        return int(self.config.num_hidden_layers) + 1  # type: ignore[union-attr, arg-type]

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the weights."""
        return next(self.backbone.parameters()).dtype

    @property
    def min_samples(self) -> int:
        """Receptive field: the fewest samples that give a frame."""
        field = 1
        for kernel, stride in reversed(self._kernels()):
            field = (field - 1) * stride + kernel
        return field

    def count_frames(self, lengths: Tensor) -> Tensor:
        """Frames that so many samples give, (B,)."""
        for kernel, stride in self._kernels():
            lengths = torch.div(lengths - kernel, stride, rounding_mode="floor") + 1
        return lengths

    def forward(
        self, samples: Tensor, lengths: Tensor | None = None, *, all_layers: bool = False
    ) -> EncodedFrames:
        """Frames of a batch of recordings.

        Args:
            samples: Waveforms, (B, T), at least `min_samples` long, padded at the end.
            lengths: Valid samples of each, (B,); None when every row is valid to its end.
            all_layers: Whether to give the hidden states of all layers too.
        """
        normalized = self.normalize(samples, lengths).to(self.dtype)
        features = self.extract_features(normalized, lengths)
        return self.contextualize(features, lengths, all_layers=all_layers)

    def normalize(self, samples: Tensor, lengths: Tensor | None) -> Tensor:
        """Samples as the encoder wants them: normalised over the valid part, then zeros."""
        if lengths is None:
            return samples if self.normalization == "none" else _standardize(samples)
        mask = frame_mask(lengths, samples.shape[1])
        samples = samples.masked_fill(~mask, 0.0)
        if self.normalization == "none":
            return samples
        count = lengths.unsqueeze(-1).to(samples.dtype)
        centred = (samples - samples.sum(dim=1, keepdim=True) / count).masked_fill(~mask, 0.0)
        variance = centred.square().sum(dim=1, keepdim=True) / count
        return centred / torch.sqrt(variance + VARIANCE_FLOOR)

    def extract_features(self, samples: Tensor, lengths: Tensor | None) -> Tensor:
        """Convolutional features of normalised samples, (B, T) -> (B, D, L)."""
        layers: Sequence[nn.Module] = self.feature_extractor.conv_layers  # type: ignore[assignment]
        if lengths is None or not isinstance(_norm_of(layers[0]), nn.GroupNorm):
            features: Tensor = self.feature_extractor(samples)
            return features
        kernel, stride = self._kernels()[0]
        num_frames = torch.div(lengths - kernel, stride, rounding_mode="floor") + 1
        features = _group_norm_layer(layers[0], samples[:, None], num_frames.tolist())
        for layer in layers[1:]:
            features = layer(features)
        return features

    def contextualize(
        self, features: Tensor, lengths: Tensor | None, *, all_layers: bool = False
    ) -> EncodedFrames:
        """Frames of convolutional features (B, D, L) of recordings with `lengths` samples."""
        mask = None if lengths is None else frame_mask(lengths, int(lengths.max()))
        output = self.backbone(features, attention_mask=mask, output_hidden_states=all_layers)
        num_frames = None if lengths is None else self.count_frames(lengths)
        hidden_states = tuple(output.hidden_states) if all_layers else ()
        return EncodedFrames(output.last_hidden_state, num_frames, hidden_states)

    def _kernels(self) -> list[tuple[int, int]]:
        config = self.config
        return list(zip(config.conv_kernel, config.conv_stride, strict=True))  # type: ignore[union-attr, arg-type]


def _standardize(samples: Tensor) -> Tensor:
    centred = samples - samples.mean(dim=1, keepdim=True)
    variance = centred.square().mean(dim=1, keepdim=True)
    return centred / torch.sqrt(variance + VARIANCE_FLOOR)


def _norm_of(layer: nn.Module) -> object:
    return getattr(layer, "layer_norm", None)


def _group_norm_layer(layer: nn.Module, samples: Tensor, num_frames: list[int]) -> Tensor:
    """One convolution whose group norm sees the valid frames of each recording alone."""
    hidden: Tensor = layer.conv(samples)  # type: ignore[operator]  # (B, D, L)
    rows = [
        functional.pad(layer.layer_norm(row[:, :, :count]), (0, hidden.shape[2] - count))  # type: ignore[operator]
        for row, count in zip(torch.split(hidden, 1), num_frames, strict=True)
    ]
    activated: Tensor = layer.activation(torch.cat(rows))  # type: ignore[operator]
    return activated
