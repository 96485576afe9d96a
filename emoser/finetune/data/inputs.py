"""What the model takes in training: waveforms, or the stored outputs of its frozen parts.

There are three forms of the same clips. Waveforms pass through the whole model. The features of
frozen convolutions are computed once and kept on disk, memory-mapped. For an encoder that is
frozen as a whole, the pooled layers are kept in memory: mean pooling commutes with linear maps,
so a head needs no more. Clips longer than the model's `max_seconds` are cut into the windows
that `predict` cuts.
"""

import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from emoser.audio import SAMPLING_RATE
from emoser.finetune.config import FinetuneConfig
from emoser.finetune.data.augment import augment, drop_quiet_ends
from emoser.finetune.data.batches import collate, crop, length_batches
from emoser.finetune.data.padding import forward_batch
from emoser.finetune.data.recordings import Recordings, Windows
from emoser.models.encoder import SpeechEncoder
from emoser.models.model import EmotionModel, EmotionOutput
from emoser.models.pooling import mean_pool

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class Batch(NamedTuple):
    """Clips in one of the three forms.

    Attributes:
        form: "waveforms", "features" or "pooled".
        values: (B, T), (B, D, L) or (B, S, D).
        lengths: Valid samples of each clip, (B,).
    """

    form: str
    values: Tensor
    lengths: Tensor

    def to(self, device: torch.device) -> "Batch":
        """The batch on a device."""
        return Batch(self.form, self.values.to(device), self.lengths.to(device))

    def select(self, start: int, end: int) -> "Batch":
        """Clips `start` to `end`, without padding that they do not need."""
        values, lengths = self.values[start:end], self.lengths[start:end]
        if self.form == "waveforms":
            values = values[:, : max(int(lengths.max()), 1)]
        return Batch(self.form, values, lengths)


class Inputs(Protocol):
    """Clips of one side of a run.

    Attributes:
        num_samples: Length of every clip.
        windows: The clips as they are scored.
    """

    num_samples: list[int]
    windows: Windows

    def load(self, indices: Sequence[int], generator: np.random.Generator | None = None) -> Batch:
        """Clips for training: one window of each, augmented if a generator is given."""

    def load_windows(self, indices: Sequence[int]) -> Batch:
        """Windows for scoring, never augmented."""


class Waveforms:
    """Clips as samples, cropped and augmented."""

    def __init__(
        self, recordings: Recordings, config: FinetuneConfig, *, window: int | None = None
    ) -> None:
        """Keep the clips; `window` is the longest piece in samples, None for whole clips."""
        self.recordings = recordings
        self.config = config
        self.num_samples = recordings.num_samples
        self.windows = Windows(recordings, window)
        self._longest = window or max(self.num_samples, default=1)
        if config.data.crop_seconds is not None:
            self._longest = min(self._longest, int(config.data.crop_seconds * SAMPLING_RATE))

    def load(self, indices: Sequence[int], generator: np.random.Generator | None = None) -> Batch:
        """Clips for training, cropped and augmented if a generator is given."""
        if generator is None:
            return self.load_windows(self.windows.draw(indices, None))
        clips = [self._vary(self.recordings[index], generator) for index in indices]
        return Batch("waveforms", *collate(clips))

    def load_windows(self, indices: Sequence[int]) -> Batch:
        """Windows for scoring."""
        return Batch("waveforms", *collate([self.windows[index] for index in indices]))

    def _vary(
        self, clip: NDArray[np.float32], generator: np.random.Generator
    ) -> NDArray[np.float32]:
        """A crop, augmented; cropped before, for speed, and after."""
        augmentation = self.config.data.augmentation
        if not self.config.varies:
            return crop(clip, self._longest, generator)
        clip = drop_quiet_ends(clip, augmentation, generator)
        wide = int(self._longest * (1.0 + augmentation.speed_change)) + 1
        varied = augment(crop(clip, wide, generator), augmentation, generator)
        return crop(varied, self._longest, generator)


class StoredFeatures:
    """Features of frozen convolutions in a memory-mapped file."""

    def __init__(
        self,
        encoder: SpeechEncoder,
        recordings: Recordings,
        file: Path,
        *,
        precision: str,
        window: int | None = None,
    ) -> None:
        """Compute the features, unless the file already holds them; `.json` beside it says which.

        The encoder is in eval mode, and its convolutions are not trained. `precision` is a key of
        `DTYPES`; `window` is the longest piece in samples, None for whole clips.
        """
        minimum = encoder.min_samples
        self.num_samples = recordings.num_samples
        self.windows = Windows(recordings, window)
        self._lengths = torch.tensor([max(size, minimum) for size in self.windows.num_samples])
        self._num_frames = encoder.count_frames(self._lengths).tolist()
        self._width = int(encoder.config.conv_dim[-1])
        self._offsets = np.cumsum([0, *(count * self._width for count in self._num_frames)])
        dtype = DTYPES[precision]
        key = _feature_key(encoder, self.windows, precision)
        index = file.with_suffix(".json")
        size = int(self._offsets[-1])
        whole = file.is_file() and file.stat().st_size == size * dtype.itemsize
        if not whole or not _holds(index, key):
            _write_features(encoder, self.windows, file, dtype)
            index.write_text(json.dumps({"key": key}), encoding="utf-8")
        self._values = torch.from_file(str(file), shared=True, size=size, dtype=dtype)

    def load(self, indices: Sequence[int], generator: np.random.Generator | None = None) -> Batch:
        """Clips for training: the features of one window of each."""
        return self.load_windows(self.windows.draw(indices, generator))

    def load_windows(self, indices: Sequence[int]) -> Batch:
        """Windows as padded features, in float32."""
        longest = max(self._num_frames[index] for index in indices)
        values = torch.zeros(len(indices), self._width, longest)
        for row, index in zip(values, indices, strict=True):
            start, count = int(self._offsets[index]), self._num_frames[index]
            piece = self._values[start : start + count * self._width]
            row[:, :count] = piece.view(self._width, count)
        return Batch("features", values, self._lengths[torch.as_tensor(indices)])


class PooledLayers:
    """The pooled output of a frozen encoder: (S, D) per window, one row per layer in use."""

    def __init__(
        self, model: EmotionModel, recordings: Recordings, *, window: int | None = None
    ) -> None:
        """Encode all clips on the device of the model, whose encoder is in eval mode."""
        self.num_samples = recordings.num_samples
        self.windows = Windows(recordings, window)
        num_states = model.encoder.num_hidden_states if model.config.layer_mix else 1
        self._values = torch.zeros(len(self.windows), num_states, model.embedding_size)
        batches = length_batches(self.windows.num_samples)
        with torch.inference_mode():
            for batch in tqdm(batches, "encoding", disable=_quiet(), leave=False):
                samples, lengths = collate([self.windows[index] for index in batch])
                self._values[batch] = _pool_layers(model, samples, lengths).cpu()

    def load(self, indices: Sequence[int], generator: np.random.Generator | None = None) -> Batch:
        """Clips for training: the pooled layers of one window of each."""
        return self.load_windows(self.windows.draw(indices, generator))

    def load_windows(self, indices: Sequence[int]) -> Batch:
        """Windows as pooled layers."""
        rows = torch.as_tensor(indices)
        return Batch("pooled", self._values[rows], torch.ones(len(rows), dtype=torch.long))


def build_inputs(
    model: EmotionModel, recordings: Recordings, config: FinetuneConfig, file: Path
) -> Inputs:
    """The clips in the form that saves the most work without changing a result.

    The model is frozen as the configuration says, and in eval mode. Features of convolutions are
    kept in the file.
    """
    form = choose_form(model, config)
    window = round(model.config.max_seconds * model.config.sampling_rate)
    if form == "pooled":
        return PooledLayers(model, recordings, window=window)
    if form == "features":
        return StoredFeatures(
            model.encoder, recordings, file, precision=config.data.cache, window=window
        )
    return Waveforms(recordings, config, window=window)


def choose_form(model: EmotionModel, config: FinetuneConfig) -> str:
    """The form of the clips: "pooled", "features" or "waveforms"."""
    convolutions = model.encoder.parts().convolutions
    frozen = not any(item.requires_grad for part in convolutions for item in part.parameters())
    kept = config.data.cache != "off" and not config.varies and config.model.padding == "exact"
    if not kept or not frozen or config.model.mode == "entire":
        return "waveforms"
    mean = model.config.pooling == "mean"
    single = model.config.pooling == "statistics" and not model.config.layer_mix
    if config.model.mode == "frozen" and model.pointwise is None and (mean or single):
        return "pooled"
    return "features" if type(model.encoder) is SpeechEncoder else "waveforms"


def run_model(
    model: EmotionModel, batch: Batch, *, wrapper: str = "exact", padded: bool = True
) -> EmotionOutput:
    """Logits and embeddings of a batch in any form.

    Args:
        model: In the state that the form was made for.
        batch: Some clips or windows.
        wrapper: How padding is treated, see `forward_batch`.
        padded: False for a batch without padding, which then needs no mask.
    """
    if not padded and batch.form == "waveforms":
        alone: EmotionOutput = model(batch.values, None)
        return alone
    if batch.form == "waveforms":
        return forward_batch(model, batch.values, batch.lengths, wrapper=wrapper)
    if batch.form == "features":
        encoded = model.encoder.contextualize(
            batch.values,
            batch.lengths if padded else None,
            all_layers=model.layer_weights is not None,
        )
        return model.classify(encoded)
    if model.layer_weights is None:
        embedding = batch.values[:, 0]
    else:
        weights = functional.softmax(model.layer_weights, dim=-1)
        embedding = torch.einsum("s,bsd->bd", weights, batch.values)
    return EmotionOutput(model.head(embedding), embedding)


def _pool_layers(model: EmotionModel, samples: Tensor, lengths: Tensor) -> Tensor:
    minimum, device = model.encoder.min_samples, next(model.parameters()).device
    if samples.shape[1] < minimum:
        samples = functional.pad(samples, (0, minimum - samples.shape[1]))
    samples, lengths = samples.to(device), lengths.clamp(min=minimum).to(device)
    encoded = model.encoder(samples, lengths, all_layers=model.config.layer_mix)
    if not model.config.layer_mix:
        return model.classify(encoded).embedding[:, None]
    pooled = [mean_pool(state, encoded.num_frames) for state in encoded.hidden_states]
    return torch.stack(pooled, dim=1)  # (B, S, D)


def _write_features(
    encoder: SpeechEncoder, windows: Windows, file: Path, dtype: torch.dtype
) -> None:
    device = next(encoder.parameters()).device
    temporary = file.with_suffix(".part")
    numbers = tqdm(range(len(windows)), "convolutions", disable=_quiet(), leave=False)
    with temporary.open("wb") as opened, torch.inference_mode():
        for index in numbers:
            samples = torch.from_numpy(windows[index])[None]
            shortage = max(encoder.min_samples - samples.shape[1], 0)
            samples = functional.pad(samples, (0, shortage)).to(device)
            features = encoder.extract_features(encoder.normalize(samples, None), None)
            values = features[0].to("cpu", dtype).contiguous().view(torch.uint8)
            opened.write(values.numpy().tobytes())
    temporary.replace(file)


def _feature_key(encoder: SpeechEncoder, windows: Windows, precision: str) -> str:
    digest = hashlib.sha256(f"{precision} {encoder.normalization}".encode())
    for tensor in encoder.feature_extractor.state_dict().values():
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    digest.update(windows.fingerprint.encode())
    return digest.hexdigest()


def _holds(index: Path, key: str) -> bool:
    try:
        return bool(json.loads(index.read_text(encoding="utf-8"))["key"] == key)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _quiet() -> bool:
    return not sys.stderr.isatty()
