"""Whisper's encoder on a recording of its own length, without the silence up to 30 s.

The log-mel spectrogram is that of transformers' WhisperFeatureExtractor, computed as if zeros
followed the recording, and cut to two mel frames (20 ms) per encoder frame. Position embeddings
are cut to the same length; convolutions, attention and pooling see no padding.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from emoser.models.encoder import EncodedFrames
from emoser.models.pooling import frame_mask
from emoser.models.spectral import (
    WHISPER_FLOOR,
    WHISPER_HOP,
    WHISPER_RANGE,
    WHISPER_STRIDE,
    WHISPER_WINDOW,
    LogMelEncoder,
    best_precision,
    cut_frames,
    power_spectrum,
)

FRAME_SAMPLES = WHISPER_STRIDE * WHISPER_HOP
TRAILING = 2  # mel frames after the last one whose windows can overlap the recording


class ShortWhisperEncoder(LogMelEncoder):
    """Whisper's encoder without padding to 30 s: a frame per 20 ms, rounded up.

    Mel frame i is centred on sample 160 i, as in the feature extractor: the recording is
    mirrored at its start and followed by zeros. The spectrogram is clamped to 8 decades below its
    own maximum, not that of a batch.
    """

    def __init__(self, backbone: nn.Module, *, final_norm: bool = True, **options: Any) -> None:
        """Wrap a WhisperEncoder.

        Args:
            backbone: The encoder of transformers.
            final_norm: Whether the layer norm after the last layer is applied.
            options: Those of `SpeechEncoder`.
        """
        super().__init__(backbone, **options)
        if not final_norm:
            self.drop_final_norm()

    def drop_final_norm(self) -> None:
        """Remove the layer norm after the last layer."""
        self.backbone.layer_norm = nn.Identity()

    def count_frames(self, lengths: Tensor) -> Tensor:
        """Numbers of frames of recordings with these numbers of samples, (B,)."""
        return torch.div(lengths + FRAME_SAMPLES - 1, FRAME_SAMPLES, rounding_mode="floor")

    def extract_features(self, samples: Tensor, lengths: Tensor | None) -> Tensor:
        """Log-mel spectrogram of samples (B, T), (B, mels, 2 L).

        Args:
            samples: Zero beyond the valid part of each recording.
            lengths: Valid samples of each, (B,); None if every row is valid to its end.

        Raises:
            ValueError: If a recording is longer than the position embeddings reach (30 s).
        """
        num_frames = (samples.shape[1] + FRAME_SAMPLES - 1) // FRAME_SAMPLES
        longest = int(self.config.max_source_positions)
        if num_frames > longest:
            raise ValueError(
                f"this Whisper encoder takes up to {longest * FRAME_SAMPLES / 16_000:g} s, got "
                f"{samples.shape[1] / 16_000:.1f} s; use shorter windows"
            )
        num_mel = WHISPER_STRIDE * num_frames
        zeros = samples.new_zeros(samples.shape[0], FRAME_SAMPLES + 2 * WHISPER_WINDOW)
        followed = torch.cat([samples, zeros], dim=1).float()
        mirrored = followed[:, 1 : WHISPER_WINDOW // 2 + 1].flip(1)
        end = (num_mel + TRAILING - 1) * WHISPER_HOP + WHISPER_WINDOW // 2
        padded = torch.cat([mirrored, followed[:, :end]], dim=1)
        power = self._power(cut_frames(padded, WHISPER_WINDOW, WHISPER_HOP))
        mel = (power @ self.filters.T.to(samples.device)).transpose(1, 2)
        log_mel = mel.clamp(min=WHISPER_FLOOR).log10()  # zeros after a recording give the floor
        loudest = log_mel.amax(dim=(1, 2), keepdim=True)
        features = (torch.maximum(log_mel, loudest - WHISPER_RANGE) + 4.0) / 4.0
        features = features[:, :, :num_mel]
        if lengths is not None:
            valid = frame_mask(WHISPER_STRIDE * self.count_frames(lengths), num_mel)
            features = features.masked_fill(~valid[:, None], 0.0)
        return features.to(self.dtype)

    def contextualize(
        self, features: Tensor, lengths: Tensor | None, *, all_layers: bool = False
    ) -> EncodedFrames:
        """Frames of a log-mel spectrogram (B, mels, 2 L) of recordings with `lengths` samples."""
        num_frames = None if lengths is None else self.count_frames(lengths)
        return self.pass_layers(self.embed(features, num_frames), num_frames, all_layers=all_layers)

    def embed(self, features: Tensor, num_frames: Tensor | None) -> Tensor:
        """The input of the first layer (B, L, D) from a spectrogram: convolutions and positions."""
        whisper: Any = self.backbone
        if self.training and getattr(self.config, "apply_spec_augment", False):
            features = self._mask_spectrogram(features, num_frames)
        hidden = self._convolve(features, num_frames)
        hidden = hidden + whisper.embed_positions.weight[: hidden.shape[1]]
        return functional.dropout(hidden, p=whisper.dropout, training=self.training)

    def pass_layers(
        self, hidden: Tensor, num_frames: Tensor | None, *, all_layers: bool = False
    ) -> EncodedFrames:
        """Frames of the last layer from the input of the first one, (B, L, D)."""
        whisper: Any = self.backbone
        mask = None if num_frames is None else frame_mask(num_frames, hidden.shape[1])
        attention_mask = None if mask is None else mask[:, None, None, :]
        states = [hidden]
        for layer in whisper.layers:
            if not self._is_dropped(whisper.layerdrop):
                hidden = layer(hidden, attention_mask)
            states.append(hidden)
        states[-1] = frames = whisper.layer_norm(hidden)
        return EncodedFrames(frames, num_frames, tuple(states) if all_layers else ())

    def _convolve(self, features: Tensor, num_frames: Tensor | None) -> Tensor:
        """The two convolutions, (B, mels, 2 L) -> (B, L, D); zeros follow each recording."""
        whisper: Any = self.backbone
        hidden = functional.gelu(whisper.conv1(features))
        if num_frames is not None:
            valid = frame_mask(WHISPER_STRIDE * num_frames, hidden.shape[2])
            hidden = hidden.masked_fill(~valid[:, None], 0.0)
        return functional.gelu(whisper.conv2(hidden)).transpose(1, 2)

    def _is_dropped(self, chance: float) -> bool:
        return self.training and chance > 0.0 and bool(torch.rand([]) < chance)

    def _mask_spectrogram(self, features: Tensor, num_frames: Tensor | None) -> Tensor:
        """SpecAugment as in transformers' Whisper: zeros over spans of time and of bands."""
        from transformers.models.whisper.modeling_whisper import _compute_mask_indices

        config = self.config
        batch, num_mels, length = features.shape
        if config.mask_time_prob > 0.0 and length > config.mask_time_length:
            valid = None
            if num_frames is not None:
                valid = frame_mask(WHISPER_STRIDE * num_frames, length).long().cpu()
            spans = _compute_mask_indices(
                (batch, length),
                mask_prob=config.mask_time_prob,
                mask_length=config.mask_time_length,
                attention_mask=valid,
                min_masks=config.mask_time_min_masks,
            )
            features = features.masked_fill(_to_mask(spans, features.device)[:, None], 0.0)
        if config.mask_feature_prob > 0.0 and num_mels > config.mask_feature_length:
            bands = _compute_mask_indices(
                (batch, num_mels),
                mask_prob=config.mask_feature_prob,
                mask_length=config.mask_feature_length,
                min_masks=config.mask_feature_min_masks,
            )
            features = features.masked_fill(_to_mask(bands, features.device)[:, :, None], 0.0)
        return features

    def _power(self, frames: Tensor) -> Tensor:
        """Power spectrum of frames, (B, L, window) -> (B, L, frequencies)."""
        if torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]  # for other engines
            return power_spectrum(frames, self.fourier).float()
        precise = best_precision(frames.device)
        spectrum = torch.fft.rfft(frames.to(precise) * self.taper.to(frames.device, precise))
        power: Tensor = spectrum.real.square() + spectrum.imag.square()
        return power.float()


def _to_mask(values: np.ndarray[Any, Any], device: torch.device) -> Tensor:
    return torch.as_tensor(values, dtype=torch.bool, device=device)
