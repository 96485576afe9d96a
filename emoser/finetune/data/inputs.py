"""Inputs of a training run: waveforms, or cached outputs of the frozen parts of the model.

Waveforms pass through the whole model. The features of frozen convolutions are computed once and
memory-mapped from disk. If the whole encoder is frozen, its pooled layers are kept in memory,
which suffices because mean pooling commutes with linear maps. Clips longer than the model's
`max_seconds` are cut into the same windows as in `predict`.
"""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from emoser.checkpoints.atomic import new_file, write_text
from emoser.finetune.config import FinetuneConfig
from emoser.finetune.cpu_math import quick_math
from emoser.finetune.data.augment import augment, drop_quiet_ends
from emoser.finetune.data.batches import collate, crop, length_batches
from emoser.finetune.data.padding import forward_batch
from emoser.finetune.data.recordings import Recordings, Windows
from emoser.finetune.progress import Progress
from emoser.json_text import read_json
from emoser.models.encoder import SpeechEncoder
from emoser.models.model import EmotionModel, EmotionOutput
from emoser.models.pooling import mean_pool

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class Batch(NamedTuple):
    """Clips in one of three forms.

    Attributes:
        form: "waveforms", "features" or "pooled".
        values: (B, T), (B, D, L) or (B, S, D).
        lengths: Valid samples of each clip, (B,).
    """

    form: str
    values: Tensor
    lengths: Tensor

    def to(self, device: torch.device) -> "Batch":
        """Move the batch to a device."""
        return Batch(self.form, self.values.to(device), self.lengths.to(device))

    def select(self, start: int, end: int) -> "Batch":
        """Clips `start` to `end`; waveforms lose the padding they no longer need."""
        values, lengths = self.values[start:end], self.lengths[start:end]
        if self.form == "waveforms":
            values = values[:, : max(int(lengths.max()), 1)]
        return Batch(self.form, values, lengths)


class Inputs(ABC):
    """The training or validation set in one of the forms.

    Args:
        recordings: The clips.
        window: Longest window in samples; None for whole clips.

    Attributes:
        num_samples: Length of every clip.
        windows: The windows of the clips.
    """

    def __init__(self, recordings: Recordings, window: int | None = None) -> None:
        self.num_samples = recordings.num_samples
        self.windows = Windows(recordings, window)
        self._recordings = recordings

    @cached_property
    def silent(self) -> NDArray[np.bool_]:
        """Whether nobody speaks in each clip, by the rule of `predict`, (N,)."""
        return self._recordings.find_silent()

    def load(self, indices: Sequence[int], generator: np.random.Generator | None = None) -> Batch:
        """One window of each clip for training; the first without a generator."""
        return self.load_windows(self.windows.draw(indices, generator))

    @abstractmethod
    def load_windows(self, indices: Sequence[int]) -> Batch:
        """Windows for scoring, never augmented."""


class Waveforms(Inputs):
    """Clips as samples, which `config` crops and augments."""

    def __init__(
        self, recordings: Recordings, config: FinetuneConfig, *, window: int | None = None
    ) -> None:
        super().__init__(recordings, window)
        self.recordings, self.config = recordings, config
        self._longest = limit_clips(self.windows, config)

    def load(self, indices: Sequence[int], generator: np.random.Generator | None = None) -> Batch:
        """Clips for training, cropped and augmented if a generator is given."""
        if generator is None:
            return super().load(indices)
        clips = [
            vary_clip(
                self.recordings[index],
                self.config,
                generator,
                longest=self._longest,
                sampling_rate=self.windows.sampling_rate,
            )
            for index in indices
        ]
        return Batch("waveforms", *collate(clips))

    def load_windows(self, indices: Sequence[int]) -> Batch:
        """Windows as padded samples."""
        return Batch("waveforms", *collate([self.windows[index] for index in indices]))


class StoredFeatures(Inputs):
    """Features of frozen convolutions in a memory-mapped file, computed unless it is up to date.

    Args:
        encoder: In eval mode; its convolutions are frozen.
        recordings: The clips.
        file: The file; a `.json` beside it identifies its content.
        precision: "float32", "bfloat16" or "float16".
        window: Longest window in samples; None for whole clips.
    """

    def __init__(
        self,
        encoder: SpeechEncoder,
        recordings: Recordings,
        file: Path,
        *,
        precision: str,
        window: int | None = None,
    ) -> None:
        super().__init__(recordings, window)
        minimum = encoder.min_samples
        self._lengths = torch.tensor([max(size, minimum) for size in self.windows.num_samples])
        self._num_frames = encoder.count_frames(self._lengths).tolist()
        self._width = int(encoder.config.conv_dim[-1])
        self._offsets = np.cumsum([0, *(count * self._width for count in self._num_frames)])
        dtype = DTYPES[precision]
        key = _feature_key(encoder, self.windows, precision)
        index = file.with_suffix(".json")
        size = int(self._offsets[-1])
        complete = file.is_file() and file.stat().st_size == size * dtype.itemsize
        if not complete or not _has_key(index, key):
            index.unlink(missing_ok=True)  # never beside the features of another run
            _write_features(encoder, self.windows, file, dtype)
            write_text(index, json.dumps({"key": key}))
        self._values = torch.from_file(str(file), shared=True, size=size, dtype=dtype)

    def load_windows(self, indices: Sequence[int]) -> Batch:
        """Windows as padded features, in float32."""
        longest = max(self._num_frames[index] for index in indices)
        values = torch.zeros(len(indices), self._width, longest)
        for row, index in zip(values, indices, strict=True):
            start, count = int(self._offsets[index]), self._num_frames[index]
            stored = self._values[start : start + count * self._width]
            row[:, :count] = stored.view(self._width, count)
        return Batch("features", values, self._lengths[torch.as_tensor(indices)])


class PooledLayers(Inputs):
    """Pooled outputs of a frozen encoder, (S, D) per window: one row per layer in use.

    Args:
        model: In eval mode, on the device to compute on.
        recordings: The clips.
        window: Longest window in samples; None for whole clips.
        config: Number and variations of the copies that are drawn in training; None for none.
    """

    def __init__(
        self,
        model: EmotionModel,
        recordings: Recordings,
        *,
        window: int | None = None,
        config: FinetuneConfig | None = None,
    ) -> None:
        super().__init__(recordings, window)
        copies = 0 if config is None else config.data.frozen_copies
        self._values = torch.stack(
            [pool_windows(model, self.windows, config, copy=copy) for copy in range(1 + copies)]
        )

    def load(self, indices: Sequence[int], generator: np.random.Generator | None = None) -> Batch:
        """One window of each clip for training, or one of its varied copies."""
        rows = torch.as_tensor(self.windows.draw(indices, generator))
        copies = torch.zeros_like(rows)
        if generator is not None and len(self._values) > 1:
            copies = torch.from_numpy(generator.integers(len(self._values), size=len(rows)))
        return _as_pooled(self._values[copies, rows])

    def load_windows(self, indices: Sequence[int]) -> Batch:
        """Windows as pooled layers."""
        return _as_pooled(self._values[0, torch.as_tensor(indices)])


def pool_windows(
    model: EmotionModel, windows: Windows, config: FinetuneConfig | None, *, copy: int = 0
) -> Tensor:
    """Pooled outputs of a frozen encoder for every window, (N, S, D).

    Args:
        model: In eval mode, on the device to compute on.
        windows: The N windows.
        config: How copies are varied; seed, copy and window determine each variation. None if
            there are no copies.
        copy: 0 for the windows themselves, else the number of a varied copy.
    """
    num_states = model.encoder.num_hidden_states if model.config.layer_mix else 1
    values = torch.zeros(len(windows), num_states, model.embedding_size)
    title = f"encoding copy {copy}, batches" if copy else "encoding, batches"
    batches, read = length_batches(windows.num_samples), copy_reader(windows, config, copy)
    device = next(model.parameters()).device
    with torch.inference_mode(), quick_math(device):
        for batch in Progress(batches, title):
            samples, lengths = collate([read(index) for index in batch])
            values[batch] = _pool_layers(model, samples, lengths).cpu()
    return values


def copy_reader(
    windows: Windows, config: FinetuneConfig | None, copy: int
) -> Callable[[int], NDArray[np.float32]]:
    """What reads a window by its index, or a varied copy of it, see `pool_windows`."""
    if config is None or not copy:
        return windows.__getitem__
    rate, longest = windows.sampling_rate, limit_clips(windows, config)

    def read(index: int) -> NDArray[np.float32]:
        generator = np.random.default_rng([config.run.seed, copy, index])
        return vary_clip(windows[index], config, generator, longest=longest, sampling_rate=rate)

    return read


def limit_clips(windows: Windows, config: FinetuneConfig) -> int:
    """The longest training clip in samples: a window, or less with `crop_seconds`."""
    longest = windows.window or max(windows.num_samples, default=1)
    if config.data.crop_seconds is None:
        return longest
    return min(longest, int(config.data.crop_seconds * windows.sampling_rate))


def vary_clip(
    clip: NDArray[np.float32],
    config: FinetuneConfig,
    generator: np.random.Generator,
    *,
    longest: int,
    sampling_rate: int,
) -> NDArray[np.float32]:
    """An augmented crop of at most `longest` samples; cropped before too, which is faster."""
    augmentation = config.data.augmentation
    if not config.varies:
        return crop(clip, longest, generator)
    clip = drop_quiet_ends(clip, augmentation, generator, sampling_rate=sampling_rate)
    wide = int(longest * (1.0 + augmentation.speed_change)) + 1
    cropped = crop(clip, wide, generator)
    varied = augment(cropped, augmentation, generator, sampling_rate=sampling_rate)
    return crop(varied, longest, generator)


def build_inputs(
    model: EmotionModel,
    recordings: Recordings,
    config: FinetuneConfig,
    file: Path,
    *,
    varied: bool = True,
) -> Inputs:
    """The clips in the form that saves the most computation without changing the results.

    Args:
        model: In eval mode, frozen as configured.
        recordings: The clips.
        config: The settings.
        file: File for the features of frozen convolutions.
        varied: Whether these are training clips, whose pooled layers may have varied copies.
    """
    form = choose_form(model, config)
    window = round(model.config.max_seconds * model.config.sampling_rate)
    if form == "pooled":
        copied = config if varied else None
        return PooledLayers(model, recordings, window=window, config=copied)
    if form == "features":
        return StoredFeatures(
            model.encoder, recordings, file, precision=config.data.cache, window=window
        )
    return Waveforms(recordings, config, window=window)


def choose_form(model: EmotionModel, config: FinetuneConfig) -> str:
    """The form that `build_inputs` takes: "pooled", "features" or "waveforms"."""
    convolutions = model.encoder.parts().convolutions
    frozen = not any(item.requires_grad for part in convolutions for item in part.parameters())
    cached = config.data.cache != "off" and config.model.padding == "exact"
    copied = config.model.mode == "frozen" and config.data.frozen_copies > 0
    if not cached or not frozen or config.model.mode == "entire" or (config.varies and not copied):
        return "waveforms"
    mean = model.config.pooling == "mean"
    single = model.config.pooling == "statistics" and not model.config.layer_mix
    if config.model.mode == "frozen" and model.pointwise is None and (mean or single):
        return "pooled"
    if config.varies or type(model.encoder) is not SpeechEncoder:
        return "waveforms"
    return "features"


def run_model(
    model: EmotionModel, batch: Batch, *, padding: str = "exact", padded: bool = True
) -> EmotionOutput:
    """Logits and embeddings of a batch in any form.

    Args:
        model: Frozen as it was when the batch's form was chosen.
        batch: Clips or windows.
        padding: Treatment of padded waveforms, see `forward_batch`.
        padded: Whether the batch has padding; without it, no mask is computed.
    """
    if batch.form == "waveforms":
        if padded:
            return forward_batch(model, batch.values, batch.lengths, padding=padding)
        output: EmotionOutput = model(batch.values)
        return output
    if batch.form == "features":
        lengths, mixed = batch.lengths if padded else None, model.layer_weights is not None
        encoded = model.encoder.contextualize(batch.values, lengths, all_layers=mixed)
        return model.classify(encoded)
    if model.layer_weights is None:
        embedding = batch.values[:, 0]
    else:
        weights = functional.softmax(model.layer_weights, dim=-1)
        embedding = torch.einsum("s,bsd->bd", weights, batch.values)
    return EmotionOutput(model.head(embedding), embedding)


def _as_pooled(values: Tensor) -> Batch:
    return Batch("pooled", values, torch.ones(len(values), dtype=torch.long))


def _pool_layers(model: EmotionModel, samples: Tensor, lengths: Tensor) -> Tensor:
    device = next(model.parameters()).device
    encoded = model.encode(samples.to(device), lengths.to(device))
    if not model.config.layer_mix:
        return model.classify(encoded).embedding[:, None]
    pooled = [mean_pool(state, encoded.num_frames) for state in encoded.hidden_states]
    return torch.stack(pooled, dim=1)  # (B, S, D)


def _write_features(
    encoder: SpeechEncoder, windows: Windows, file: Path, dtype: torch.dtype
) -> None:
    device = next(encoder.parameters()).device
    numbers = Progress(range(len(windows)), "convolutions, windows")
    with new_file(file) as written, written.open("wb") as opened, torch.inference_mode():
        for index in numbers:
            samples = torch.from_numpy(windows[index])[None]
            shortage = max(encoder.min_samples - samples.shape[1], 0)
            samples = functional.pad(samples, (0, shortage)).to(device)
            features = encoder.extract_features(encoder.normalize(samples, None), None)
            values = features[0].to("cpu", dtype).contiguous().view(torch.uint8)
            opened.write(values.numpy().tobytes())


def _feature_key(encoder: SpeechEncoder, windows: Windows, precision: str) -> str:
    digest = hashlib.sha256(f"{precision} {encoder.normalization}".encode())
    for tensor in encoder.feature_extractor.state_dict().values():
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    digest.update(windows.fingerprint.encode())
    return digest.hexdigest()


def _has_key(index: Path, key: str) -> bool:
    try:
        return bool(read_json(index, dict)["key"] == key)
    except (OSError, ValueError, KeyError, TypeError):
        return False
