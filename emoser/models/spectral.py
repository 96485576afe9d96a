"""Encoders of transformers with a spectrogram as input: Whisper and wav2vec2-BERT.

The same two steps as in `SpeechEncoder`: `extract_features` computes the spectrogram,
`contextualize` runs the network. Both front ends match the feature extractors of transformers.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from emoser.models.encoder import EncodedFrames, EncoderParts, SpeechEncoder

MEL_RATE = 16_000  # Hz, of the recordings of Whisper
MEL_HIGHEST = 8_000.0  # Hz
WHISPER_WINDOW = 400  # samples
WHISPER_HOP = 160
WHISPER_STRIDE = 2  # mel frames per frame of the encoder
WHISPER_FLOOR = 1e-10
WHISPER_RANGE = 8.0  # decades below the maximum of the recording
KALDI_WINDOW = 400
KALDI_HOP = 160
KALDI_FFT = 512
KALDI_FLOOR = 1.192092955078125e-07
KALDI_PREEMPHASIS = 0.97
KALDI_STACK = 2  # filter bank frames per frame of the encoder
KALDI_SCALE = 2.0**15  # of 16-bit integers
KALDI_LOWEST = 20.0  # Hz
BIN_VARIANCE_FLOOR = 1e-7


class LogMelEncoder(SpeechEncoder):
    """Whisper's encoder on 30 s of log-mel spectrogram, whatever the length of the recording.

    Whisper has no attention mask: the zeros that fill the 30 s are part of the input and all
    frames are valid, so a batch needs no further masking. Longer recordings must be split first.
    The 30 s stand for what its position embeddings cover, which is less in a few checkpoints.
    """

    def _detach_features(self, backbone: nn.Module) -> None:
        """Whisper has no convolutions over samples; prepare the spectrogram instead."""
        self.filters = _whisper_filters(int(backbone.config.num_mel_bins))  # type: ignore[union-attr, arg-type]
        hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WHISPER_WINDOW) / WHISPER_WINDOW)
        self.taper = torch.from_numpy(hann)
        self.fourier = _fourier(hann, WHISPER_WINDOW)

    def parts(self) -> EncoderParts:
        """The modules of the encoder; the convolutions run over the spectrogram."""
        whisper: Any = self.backbone
        return EncoderParts(
            [whisper.conv1, whisper.conv2], [whisper.embed_positions], [*whisper.layers]
        )

    @property
    def min_samples(self) -> int:
        """One sample: the rest of the 30 s is zeros."""
        return 1

    def count_frames(self, lengths: Tensor) -> Tensor:
        """The frames of 30 s for every recording, (B,)."""
        return torch.full_like(lengths, int(self.config.max_source_positions))

    def extract_features(self, samples: Tensor, lengths: Tensor | None) -> Tensor:
        """Log-mel spectrogram of samples (B, T), (B, mels, 3000).

        Raises:
            ValueError: If a recording is longer than 30 s.
        """
        total = int(self.config.max_source_positions) * WHISPER_STRIDE * WHISPER_HOP
        if samples.shape[1] > total:
            raise ValueError(
                f"this Whisper encoder takes up to {total / MEL_RATE:g} s, got "
                f"{samples.shape[1] / MEL_RATE:.1f} s; use shorter windows"
            )
        padded = functional.pad(samples.float(), (0, total - samples.shape[1]))
        mirrored = functional.pad(padded, (WHISPER_WINDOW // 2,) * 2, mode="reflect")
        frames = cut_frames(mirrored[:, :-WHISPER_HOP], WHISPER_WINDOW, WHISPER_HOP)
        power = power_spectrum(frames, self.fourier).float()  # (B, 3000, frequencies)
        mel = (power @ self.filters.T.to(samples.device)).transpose(1, 2)
        log_mel = mel.clamp(min=WHISPER_FLOOR).log10()
        loudest = log_mel.amax(dim=(1, 2), keepdim=True)
        return ((torch.maximum(log_mel, loudest - WHISPER_RANGE) + 4.0) / 4.0).to(self.dtype)

    def normalize(self, samples: Tensor, lengths: Tensor | None) -> Tensor:
        """Normalised samples in float32, the precision of the spectrogram."""
        return super().normalize(samples.float(), lengths)

    def forward(
        self, samples: Tensor, lengths: Tensor | None = None, *, all_layers: bool = False
    ) -> EncodedFrames:
        """Frames of a batch of recordings, 1500 each."""
        features = self.extract_features(self.normalize(samples, lengths), lengths)
        return self.contextualize(features, lengths, all_layers=all_layers)

    def contextualize(
        self, features: Tensor, lengths: Tensor | None, *, all_layers: bool = False
    ) -> EncodedFrames:
        """Frames of a log-mel spectrogram."""
        output = self.backbone(features, output_hidden_states=all_layers)
        hidden_states = tuple(output.hidden_states) if all_layers else ()
        return EncodedFrames(output.last_hidden_state, None, hidden_states)


class FilterBankEncoder(SpeechEncoder):
    """Wav2vec2-BERT: Kaldi's filter banks, stacked in pairs of frames, and a conformer."""

    stride = KALDI_STACK

    def _detach_features(self, backbone: nn.Module) -> None:
        """Wav2vec2-BERT has no convolutions over samples; prepare the filter banks instead."""
        num_bins = int(backbone.config.feature_projection_input_dim) // self.stride  # type: ignore[union-attr, arg-type]
        self.filters = _kaldi_filters(num_bins, self.sampling_rate)
        hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(KALDI_WINDOW) / (KALDI_WINDOW - 1))
        self.fourier = _fourier(hann**0.85, KALDI_FFT)

    @property
    def min_samples(self) -> int:
        """Two filter bank frames, the fewest with a variance over time."""
        return KALDI_WINDOW + KALDI_HOP

    def count_frames(self, lengths: Tensor) -> Tensor:
        """Numbers of frames, (B,); an odd filter bank frame at the end is dropped."""
        count = torch.div(lengths - KALDI_WINDOW, KALDI_HOP, rounding_mode="floor") + 1
        return torch.div(count, self.stride, rounding_mode="floor")

    def forward(
        self, samples: Tensor, lengths: Tensor | None = None, *, all_layers: bool = False
    ) -> EncodedFrames:
        """Frames of a batch of recordings."""
        features = self.extract_features(self.normalize(samples.float(), lengths), lengths)
        return self.contextualize(features, lengths, all_layers=all_layers)

    def extract_features(self, samples: Tensor, lengths: Tensor | None) -> Tensor:
        """Normalised filter banks of samples (B, T), (B, L, bins x 2)."""
        banks = _kaldi_filter_banks(samples, self.fourier, self.filters)  # (B, L, bins)
        if lengths is None:
            return self._pair(_normalize_bins(banks)).to(self.dtype)
        counts = ((lengths - KALDI_WINDOW) // KALDI_HOP + 1).tolist()
        rows = [
            _normalize_bins(row[:, :count])
            for row, count in zip(torch.split(banks, 1), counts, strict=True)
        ]
        longest = max(counts)
        padded = [functional.pad(row, (0, 0, 0, longest - row.shape[1])) for row in rows]
        return self._pair(torch.cat(padded)).to(self.dtype)

    def _pair(self, banks: Tensor) -> Tensor:
        """Pairs of frames as one frame each, (B, L, bins) -> (B, L // 2, 2 bins)."""
        length = banks.shape[1] // self.stride
        return banks[:, : length * self.stride].reshape(
            banks.shape[0], length, self.stride * banks.shape[2]
        )

    def contextualize(
        self, features: Tensor, lengths: Tensor | None, *, all_layers: bool = False
    ) -> EncodedFrames:
        """Frames of filter banks."""
        num_frames, mask = None, None
        if lengths is not None:
            num_frames = self.count_frames(lengths)
            mask = torch.arange(features.shape[1], device=features.device) < num_frames[:, None]
        output = self.backbone(features, attention_mask=mask, output_hidden_states=all_layers)
        hidden_states = tuple(output.hidden_states) if all_layers else ()
        return EncodedFrames(output.last_hidden_state, num_frames, hidden_states)


def whisper_seconds(max_source_positions: int) -> float:
    """How many seconds the position embeddings of Whisper's encoder cover.

    Example:
        >>> whisper_seconds(1500)
        30.0
    """
    return max_source_positions * WHISPER_STRIDE * WHISPER_HOP / MEL_RATE


def _whisper_filters(num_bins: int) -> Tensor:
    """Slaney's mel filters, (bins, frequencies)."""
    return _mel_filters(
        max_frequency=MEL_HIGHEST,
        sampling_rate=MEL_RATE,
        num_frequency_bins=1 + WHISPER_WINDOW // 2,
        num_mel_filters=num_bins,
        min_frequency=0.0,
        norm="slaney",
        mel_scale="slaney",
    ).float()


def _kaldi_filters(num_bins: int, sampling_rate: int) -> Tensor:
    """Kaldi's mel filters up to half the rate, (bins, frequencies), in double precision."""
    return _mel_filters(
        max_frequency=sampling_rate // 2,
        sampling_rate=sampling_rate,
        num_frequency_bins=KALDI_FFT // 2 + 1,
        num_mel_filters=num_bins,
        min_frequency=KALDI_LOWEST,
        norm=None,
        mel_scale="kaldi",
        triangularize_in_mel_space=True,
    )


def _mel_filters(**options: Any) -> Tensor:
    from transformers.audio_utils import mel_filter_bank

    return torch.from_numpy(np.ascontiguousarray(mel_filter_bank(**options).T))


def _fourier(taper: npt.NDArray[np.float64], size: int) -> Tensor:
    """Matrix of the discrete Fourier transform of tapered frames, (window, 2 x frequencies).

    Cosines, then sines, in double precision. Every engine can multiply by a matrix.
    """
    steps = np.arange(len(taper))[:, None] * np.arange(size // 2 + 1)[None, :]
    angles = 2 * np.pi * (steps % size) / size
    parts = np.concatenate([np.cos(angles), np.sin(angles)], axis=1)
    return torch.from_numpy(parts * taper[:, None])


def cut_frames(samples: Tensor, window: int, hop: int) -> Tensor:
    """Overlapping frames, (B, T) -> (B, L, window)."""
    count = (samples.shape[1] - window) // hop + 1
    starts = torch.arange(count, device=samples.device)[:, None] * hop
    positions = starts + torch.arange(window, device=samples.device)
    return samples.index_select(1, positions.flatten()).reshape(samples.shape[0], -1, window)


def power_spectrum(frames: Tensor, fourier: Tensor) -> Tensor:
    """Power spectrum of frames, (B, L, window) -> (B, L, frequencies), in `best_precision`."""
    precise = best_precision(frames.device)
    product = frames.to(precise) @ fourier.to(device=frames.device, dtype=precise)
    cosines, sines = product.chunk(2, dim=-1)
    return cosines.square() + sines.square()


def best_precision(device: torch.device) -> torch.dtype:
    """Double precision, or single on devices without it (Apple's GPUs)."""
    return torch.float32 if device.type == "mps" else torch.float64


def _kaldi_filter_banks(samples: Tensor, fourier: Tensor, filters: Tensor) -> Tensor:
    """Log mel filter banks, (B, T) -> (B, L, bins), in double precision as in transformers."""
    precise = best_precision(samples.device)
    frames = cut_frames(samples.to(precise) * KALDI_SCALE, KALDI_WINDOW, KALDI_HOP)
    frames = frames - frames.mean(dim=2, keepdim=True)
    previous = torch.cat([frames[..., :1], frames[..., :-1]], dim=2)
    power = power_spectrum(frames - KALDI_PREEMPHASIS * previous, fourier)  # (B, L, frequencies)
    mel = power @ filters.T.to(device=samples.device, dtype=precise)
    banks: Tensor = mel.clamp(min=KALDI_FLOOR).log().float()
    return banks


def _normalize_bins(banks: Tensor) -> Tensor:
    """Filter banks (B, L, bins) with zero mean and unit variance of every bin over time."""
    variance = banks.var(dim=1, keepdim=True, correction=1)
    return (banks - banks.mean(dim=1, keepdim=True)) / (variance + BIN_VARIANCE_FLOOR).sqrt()
