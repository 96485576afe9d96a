"""What the model is fed in training: waveforms, or what its frozen parts make of them, kept.

Three forms of the same clips. Waveforms pass the whole model. The features of frozen
convolutions are computed once and kept on disk, memory-mapped. Of an encoder that is frozen as a
whole the pooled layers are kept in memory: mean pooling commutes with linear maps, so a head
needs no more. Knows nothing of losses or epochs.
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

from emoser.finetune.config import FinetuneConfig
from emoser.finetune.data.augment import augment, shorten
from emoser.finetune.data.batches import collate, crop, length_batches
from emoser.finetune.data.padding import forward_batch
from emoser.finetune.data.recordings import SAMPLING_RATE, Recordings
from emoser.models.encoder import SpeechEncoder
from emoser.models.model import EmotionModel, EmotionOutput
from emoser.models.pooling import mean_pool

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class Batch(NamedTuple):
    """Some clips in one of the three forms.

    Attributes:
        form: "waveforms", "features" or "pooled".
        values: (B, T), (B, D, L) or (B, S, D).
        lengths: Valid samples of each clip, (B,).
    """

    form: str
    values: Tensor
    lengths: Tensor

    def to(self, device: torch.device) -> "Batch":
        """The same on a device."""
        return Batch(self.form, self.values.to(device), self.lengths.to(device))

    def select(self, start: int, end: int) -> "Batch":
        """Some of the clips, without the padding that they do not need."""
        values, lengths = self.values[start:end], self.lengths[start:end]
        if self.form == "waveforms":
            values = values[:, : max(int(lengths.max()), 1)]
        return Batch(self.form, values, lengths)


class Inputs(Protocol):
    """Clips of one side of a run."""

    num_samples: list[int]

    def load(self, indices: Sequence[int], generator: np.random.Generator | None = None) -> Batch:
        """Some clips; varied where a generator is given and the settings say so."""


class Waveforms:
    """Clips as samples, cropped and augmented."""

    def __init__(self, recordings: Recordings, config: FinetuneConfig) -> None:
        self.recordings = recordings
        self.config = config
        self.num_samples = recordings.num_samples

    def load(self, indices: Sequence[int], generator: np.random.Generator | None = None) -> Batch:
        """Some clips; varied where a generator is given and the settings say so."""
        clips = [self.recordings[index] for index in indices]
        if generator is not None:
            clips = [vary_clip(clip, self.config, generator) for clip in clips]
        return Batch("waveforms", *collate(clips))


class StoredFeatures:
    """Features of frozen convolutions in a memory-mapped file."""

    def __init__(
        self, encoder: SpeechEncoder, recordings: Recordings, file: Path, *, precision: str
    ) -> None:
        """Compute them, unless the file holds exactly these.

        Args:
            encoder: Its convolutions stay as they are; in eval mode.
            recordings: The clips.
            file: Where to keep them; `.json` beside it says what it holds.
            precision: "float32", "bfloat16" or "float16".
        """
        minimum = encoder.min_samples
        self.num_samples = recordings.num_samples
        self._lengths = torch.tensor([max(size, minimum) for size in self.num_samples])
        self._num_frames = encoder.count_frames(self._lengths).tolist()
        self._width = int(encoder.config.conv_dim[-1])
        self._offsets = np.cumsum([0, *(count * self._width for count in self._num_frames)])
        dtype = DTYPES[precision]
        key = _feature_key(encoder, recordings, precision)
        index = file.with_suffix(".json")
        size = int(self._offsets[-1])
        whole = file.is_file() and file.stat().st_size == size * dtype.itemsize
        if not whole or not _holds(index, key):
            _write_features(encoder, recordings, file, dtype)
            index.write_text(json.dumps({"key": key}), encoding="utf-8")
        self._values = torch.from_file(str(file), shared=True, size=size, dtype=dtype)

    def load(self, indices: Sequence[int], generator: np.random.Generator | None = None) -> Batch:
        """Some clips as padded features, in float32."""
        longest = max(self._num_frames[index] for index in indices)
        values = torch.zeros(len(indices), self._width, longest)
        for row, index in zip(values, indices, strict=True):
            start, count = int(self._offsets[index]), self._num_frames[index]
            piece = self._values[start : start + count * self._width]
            row[:, :count] = piece.view(self._width, count)
        return Batch("features", values, self._lengths[torch.as_tensor(indices)])


class PooledLayers:
    """Pooled output of a frozen encoder for every clip, (S, D): one row per layer in use.

    With varied copies, one is drawn for each clip when a generator is given.
    """

    def __init__(
        self, model: EmotionModel, recordings: Recordings, config: FinetuneConfig | None = None
    ) -> None:
        """Compute them.

        Args:
            model: Its encoder is in eval mode and on the device to compute on.
            recordings: The clips.
            config: The settings of the varied copies; None for none.
        """
        self.num_samples = recordings.num_samples
        copies = 0 if config is None else config.data.frozen_copies
        plain = config or FinetuneConfig()
        self._values = torch.stack(
            [pool_clips(model, recordings, plain, copy=copy) for copy in range(1 + copies)]
        )

    def load(self, indices: Sequence[int], generator: np.random.Generator | None = None) -> Batch:
        """Some clips as pooled layers."""
        rows = torch.as_tensor(indices)
        copies = torch.zeros_like(rows)
        if generator is not None and len(self._values) > 1:
            copies = torch.from_numpy(generator.integers(len(self._values), size=len(rows)))
        ones = torch.ones(len(rows), dtype=torch.long)
        return Batch("pooled", self._values[copies, rows], ones)


def pool_clips(
    model: EmotionModel, recordings: Recordings, config: FinetuneConfig, *, copy: int = 0
) -> Tensor:
    """Pooled output of a frozen encoder for every clip, (N, S, D).

    Args:
        model: Its encoder is in eval mode and on the device to compute on.
        recordings: The N clips.
        config: Says how copies are varied; the seed, the copy and the clip determine how.
        copy: 0 for the clips themselves, else the number of a varied copy.
    """

    def read(index: int) -> NDArray[np.float32]:
        if not copy:
            return recordings[index]
        generator = np.random.default_rng([config.run.seed, copy, index])
        return vary_clip(recordings[index], config, generator)

    num_states = model.encoder.num_hidden_states if model.config.layer_mix else 1
    values = torch.zeros(len(recordings), num_states, model.embedding_size)
    title = f"encoding copy {copy}" if copy else "encoding"
    batches = tqdm(length_batches(recordings.num_samples), title, disable=_quiet(), leave=False)
    with torch.inference_mode():
        for batch in batches:
            samples, lengths = collate([read(index) for index in batch])
            values[batch] = _pool_layers(model, samples, lengths).cpu()
    return values


def vary_clip(
    clip: NDArray[np.float32], config: FinetuneConfig, generator: np.random.Generator
) -> NDArray[np.float32]:
    """A crop, augmented; cropped before, for speed, and after."""
    if not config.varies:
        return clip
    clip = shorten(clip, config.data.augmentation, generator)
    if config.data.crop_seconds is None:
        return augment(clip, config.data.augmentation, generator)
    size = int(config.data.crop_seconds * SAMPLING_RATE)
    wide = int(size * (1.0 + config.data.augmentation.speed_change)) + 1
    varied = augment(crop(clip, wide, generator), config.data.augmentation, generator)
    return crop(varied, size, generator)


def build_inputs(
    model: EmotionModel,
    recordings: Recordings,
    config: FinetuneConfig,
    file: Path,
    *,
    varied: bool = True,
) -> Inputs:
    """The clips in the form that saves the most work without changing a result.

    Args:
        model: Frozen as the configuration says, in eval mode.
        recordings: The clips.
        config: Says what is varied, what is frozen, and whether to keep anything.
        file: Where features of convolutions are kept.
        varied: Whether the clips are varied as the settings say; not in validation.
    """
    form = choose_form(model, config)
    if form == "pooled":
        return PooledLayers(model, recordings, config if varied else None)
    if form == "features":
        return StoredFeatures(model.encoder, recordings, file, precision=config.data.cache)
    return Waveforms(recordings, config)


def choose_form(model: EmotionModel, config: FinetuneConfig) -> str:
    """The form of the clips: "pooled", "features" or "waveforms"."""
    convolutions = model.encoder.parts().convolutions
    frozen = not any(item.requires_grad for part in convolutions for item in part.parameters())
    kept = config.data.cache != "off" and config.model.padding == "exact"
    if not kept or not frozen or config.model.mode == "entire":
        return "waveforms"
    copied = config.model.mode == "frozen" and config.data.frozen_copies > 0
    if config.varies and not copied:
        return "waveforms"
    mean = model.config.pooling == "mean"
    single = model.config.pooling == "statistics" and not model.config.layer_mix
    if config.model.mode == "frozen" and model.pointwise is None and (mean or single):
        return "pooled"
    if config.varies:
        return "waveforms"
    return "features" if type(model.encoder) is SpeechEncoder else "waveforms"


def run_model(model: EmotionModel, batch: Batch, *, wrapper: str = "exact") -> EmotionOutput:
    """Logits and embeddings of a batch in any form."""
    if batch.form == "waveforms":
        return forward_batch(model, batch.values, batch.lengths, wrapper=wrapper)
    if batch.form == "features":
        encoded = model.encoder.contextualize(
            batch.values, batch.lengths, all_layers=model.layer_weights is not None
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
    encoder: SpeechEncoder, recordings: Recordings, file: Path, dtype: torch.dtype
) -> None:
    device = next(encoder.parameters()).device
    temporary = file.with_suffix(".part")
    clips = tqdm(range(len(recordings)), "convolutions", disable=_quiet(), leave=False)
    with temporary.open("wb") as opened, torch.inference_mode():
        for index in clips:
            samples = torch.from_numpy(recordings[index])[None]
            shortage = max(encoder.min_samples - samples.shape[1], 0)
            samples = functional.pad(samples, (0, shortage)).to(device)
            features = encoder.extract_features(encoder.normalize(samples, None), None)
            values = features[0].to("cpu", dtype).contiguous().view(torch.uint8)
            opened.write(values.numpy().tobytes())
    temporary.replace(file)


def _feature_key(encoder: SpeechEncoder, recordings: Recordings, precision: str) -> str:
    digest = hashlib.sha256(f"{precision} {encoder.normalization}".encode())
    for tensor in encoder.feature_extractor.state_dict().values():
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    digest.update(recordings.fingerprint.encode())
    return digest.hexdigest()


def _holds(index: Path, key: str) -> bool:
    try:
        return bool(json.loads(index.read_text(encoding="utf-8"))["key"] == key)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _quiet() -> bool:
    return not sys.stderr.isatty()
