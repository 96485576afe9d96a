"""A speech encoder of transformers, made exact under padding.

Maps samples (B, T) with lengths to frames (B, L, D) with lengths. The valid frames of a recording
are the same in every batch, up to float rounding. Two things in transformers prevent that: the
input normalisation of padded rows, and the group norm of the first convolution (wav2vec2-base,
hubert-base), whose statistics over time include the padding. Here both use the valid part only,
and so does every later convolution across frames (data2vec, conformer).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from threading import Lock
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from emoser.models import torchaudio_guard  # noqa: F401  # before the first import of transformers
from emoser.models.pooling import frame_mask

VARIANCE_FLOOR = 1e-7  # that of transformers' Wav2Vec2FeatureExtractor
LAYER_NORM_EPS = 1e-5  # that of torch's layer norm
LEVEL = 10.0 ** (-25.0 / 20.0)  # root mean square that "level" scales to
LEVEL_FLOOR = 1e-10  # -100 dBFS
CORPUS_FLOOR = 1e-6  # added to the standard deviation of a corpus

_valid_frames: ContextVar[Tensor | None] = ContextVar("valid_frames", default=None)
_conformer_lock = Lock()  # transformers' conformers store their last positions in the module


class EncodedFrames(NamedTuple):
    """The output of an encoder.

    Attributes:
        frames: Output of the last layer, (B, L, D).
        num_frames: Valid frames of each recording, (B,); None if all L are valid.
        hidden_states: Input of the first layer and output of every layer, (B, L, D) each; empty
            unless requested.
    """

    frames: Tensor
    num_frames: Tensor | None
    hidden_states: tuple[Tensor, ...]


class EncoderParts(NamedTuple):
    """The modules of an encoder from input to output, for freezing some of them.

    Attributes:
        convolutions: Over samples or the spectrogram; empty if the front end has no weights.
        stem: The modules between them and the first layer.
        layers: The transformer layers; modules after the last layer are in no part.
    """

    convolutions: list[nn.Module]
    stem: list[nn.Module]
    layers: list[nn.Module]


class PrecomputedFeatures(nn.Module):
    """Replaces the convolutions of a backbone, which have run before it."""

    def forward(self, features: Tensor) -> Tensor:
        """The features, unchanged, (B, D, L)."""
        return features


class SpeechEncoder(nn.Module):
    """An encoder of the wav2vec 2.0 kind (Wav2Vec2Model, HubertModel, WavLMModel, ...).

    The convolutions and the transformer are two steps, `extract_features` and `contextualize`,
    so that the features of frozen convolutions can be stored.
    """

    def __init__(
        self,
        backbone: nn.Module,
        *,
        normalization: str = "clip",
        corpus: tuple[float, float] = (0.0, 1.0),
        sampling_rate: int = 16_000,
    ) -> None:
        """Wrap an encoder of transformers.

        Args:
            backbone: The encoder, whose convolutions move to this module.
            normalization: As in `ModelConfig`.
            corpus: Mean and standard deviation of the training corpus, for "corpus".
            sampling_rate: Of the recordings, in Hz; filter banks depend on it.
        """
        super().__init__()
        self.sampling_rate = sampling_rate
        self._detach_features(backbone)
        # Graph tracers read every attribute, and transformers would log that it knows no loss.
        cast(Any, backbone).loss_function = None
        self.backbone = backbone
        self.normalization = normalization
        self.corpus = corpus
        self.config = cast(Any, backbone.config)
        kind = str(self.config.model_type)
        self.cached_positions = kind == "wav2vec2-conformer"
        for convolution in _late_convolutions(backbone, kind):
            convolution.register_forward_pre_hook(_mask_frames)

    def _detach_features(self, backbone: nn.Module) -> None:
        self.feature_extractor: nn.Module = backbone.feature_extractor  # type: ignore[assignment]
        backbone.feature_extractor = PrecomputedFeatures()

    def parts(self) -> EncoderParts:
        """The modules of the encoder, by their function."""
        inner: nn.Module = self.backbone.encoder  # type: ignore[assignment]
        stem = [
            child for name, child in inner.named_children() if name not in ("layers", "layer_norm")
        ]
        stem.append(self.backbone.feature_projection)  # type: ignore[arg-type]
        extractor = getattr(self, "feature_extractor", None)
        return EncoderParts([] if extractor is None else [extractor], stem, [*inner.layers])  # type: ignore[misc]

    @property
    def hidden_size(self) -> int:
        """Width D of a frame."""
        return int(self.config.hidden_size)

    @property
    def num_hidden_states(self) -> int:
        """Number of hidden states: the input of the first layer and the output of every layer."""
        return int(self.config.num_hidden_layers) + 1

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the weights."""
        return next(self.backbone.parameters()).dtype

    @property
    def min_samples(self) -> int:
        """Receptive field: the smallest number of samples that gives a frame."""
        field = 1
        for kernel, stride in reversed(self._kernels()):
            field = (field - 1) * stride + kernel
        return field

    def keep_layers(self, num_layers: int) -> None:
        """Drop all layers after the first `num_layers`; a final layer norm stays.

        Raises:
            ValueError: If the encoder has fewer.
        """
        total = self.num_hidden_states - 1
        if not 1 <= num_layers <= total:
            raise ValueError(f"num_layers is {num_layers}, the encoder has {total}")
        holder: Any = getattr(self.backbone, "encoder", self.backbone)
        holder.layers = holder.layers[:num_layers]
        self.config.num_hidden_layers = num_layers

    def count_frames(self, lengths: Tensor) -> Tensor:
        """Numbers of frames of recordings with these numbers of samples, (B,)."""
        for kernel, stride in self._kernels():
            lengths = torch.div(lengths - kernel, stride, rounding_mode="floor") + 1
        return lengths

    def forward(
        self, samples: Tensor, lengths: Tensor | None = None, *, all_layers: bool = False
    ) -> EncodedFrames:
        """Frames of a batch of recordings.

        Args:
            samples: Waveforms, (B, T), at least `min_samples` long, padded at the end.
            lengths: Valid samples of each, (B,); None if every row is valid to its end.
            all_layers: Whether to return the hidden states of all layers too.
        """
        normalized = self.normalize(samples, lengths).to(self.dtype)
        features = self.extract_features(normalized, lengths)
        return self.contextualize(features, lengths, all_layers=all_layers)

    def normalize(self, samples: Tensor, lengths: Tensor | None) -> Tensor:
        """Samples normalised over the valid part of each row, with zeros after it."""
        mask = None if lengths is None else frame_mask(lengths, samples.shape[1])
        if mask is not None:
            samples = samples.masked_fill(~mask, 0.0)
        if self.normalization == "none":
            return samples
        if self.normalization == "corpus":
            mean, deviation = self.corpus
            scaled = (samples - mean) / (deviation + CORPUS_FLOOR)
            return scaled if mask is None else scaled.masked_fill(~mask, 0.0)
        if self.normalization == "level":
            count = torch.ones_like(samples[:1]).sum() if lengths is None else lengths.unsqueeze(-1)
            power = samples.square().sum(dim=1, keepdim=True) / count.to(samples.dtype)
            return samples * (LEVEL / torch.sqrt(power + LEVEL_FLOOR))
        if mask is None or lengths is None:
            centred = samples - samples.mean(dim=1, keepdim=True)
            variance = centred.square().mean(dim=1, keepdim=True)
        else:
            count = lengths.unsqueeze(-1).to(samples.dtype)
            centred = samples - samples.sum(dim=1, keepdim=True) / count
            centred = centred.masked_fill(~mask, 0.0)
            variance = centred.square().sum(dim=1, keepdim=True) / count
        if self.normalization == "centre":
            return centred
        floor = LAYER_NORM_EPS if self.normalization == "layer" else VARIANCE_FLOOR
        return centred / torch.sqrt(variance + floor)

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
        num_frames = None if lengths is None else self.count_frames(lengths)
        with _masking(num_frames, features.shape[-1]), self._alone():
            output = self.backbone(features, attention_mask=mask, output_hidden_states=all_layers)
        hidden_states = tuple(output.hidden_states) if all_layers else ()
        return EncodedFrames(output.last_hidden_state, num_frames, hidden_states)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """A block for one thread at a time if the encoder changes its own attributes."""
        if not self.cached_positions:
            yield
            return
        with _conformer_lock:
            yield

    def _kernels(self) -> list[tuple[int, int]]:
        config = self.config
        return list(zip(config.conv_kernel, config.conv_stride, strict=True))


def _late_convolutions(backbone: nn.Module, kind: str) -> list[nn.Module]:
    """Convolutions over frames in the transformer whose input transformers does not mask."""
    endings = {"data2vec-audio": ".conv", "wav2vec2-conformer": ".depthwise_conv"}
    if kind not in endings:
        return []
    return [
        module
        for name, module in backbone.named_modules()
        if name.startswith("encoder.") and name.endswith(endings[kind])
    ]


@contextmanager
def _masking(num_frames: Tensor | None, length: int) -> Iterator[None]:
    """Set the valid frames of the batch for `_mask_frames`, in this thread only."""
    if num_frames is None:
        yield
        return
    token = _valid_frames.set(frame_mask(num_frames, length))
    try:
        yield
    finally:
        _valid_frames.reset(token)


def _mask_frames(module: nn.Module, arguments: tuple[Tensor]) -> tuple[Tensor] | None:
    """Replace padding in the input of a convolution (B, D, L) with zeros."""
    valid = _valid_frames.get()
    return None if valid is None else (arguments[0].masked_fill(~valid[:, None, :], 0.0),)


def _norm_of(layer: nn.Module) -> object:
    return getattr(layer, "layer_norm", None)


def _group_norm_layer(layer: nn.Module, samples: Tensor, num_frames: list[int]) -> Tensor:
    """One convolution with its group norm over the valid frames of each recording only."""
    hidden: Tensor = layer.conv(samples)  # type: ignore[operator]  # (B, D, L)
    rows = [
        functional.pad(layer.layer_norm(row[:, :, :count]), (0, hidden.shape[2] - count))  # type: ignore[operator]
        for row, count in zip(torch.split(hidden, 1), num_frames, strict=True)
    ]
    activated: Tensor = layer.activation(torch.cat(rows))  # type: ignore[operator]
    return activated
