"""What a model says about recordings: `predict_logits(model, utterances)` -> (N, C).

Recordings are decoded, cut into windows and scored by the code of `EmotionClassifier.predict`,
including the calibration temperature.
"""

from collections.abc import Iterable, Iterator, Sequence, Sized
from contextlib import contextmanager
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from emoser.errors import AudioError, EmoserError
from emoser.finetune.cpu_math import quick_math
from emoser.finetune.data.batches import collate
from emoser.finetune.data.recordings import (
    Recordings,
    find_unreadable,
    group_by_file,
    refuse_unreadable,
)
from emoser.finetune.data.utterance import Utterance
from emoser.finetune.progress import Progress
from emoser.inference.batching import InferenceOptions, RecordingOutput, infer_recordings
from emoser.inference.pieces import Piece, infer_pieces
from emoser.models.config import ModelConfig
from emoser.models.model import EmotionModel
from emoser.results.segments import SILENCE
from emoser.runtimes import InferenceOutput, Runtime

CERTAIN = 100.0  # above all logarithms of scores
BATCH_SECONDS = 30.0  # on a GPU, padding included


def predict_logits(
    model: EmotionModel,
    clips: Recordings | Sequence[Utterance],
    *,
    device: torch.device | None = None,
) -> NDArray[np.float32]:
    """Logarithms of the scores of `predict` for all clips, then its dimensions, (N, C).

    Args:
        model: Evaluated in eval mode on `device`; both are restored afterwards.
        clips: Decoded recordings, or utterances to decode on the way.
        device: Where to compute; by default where the model is.

    Raises:
        AudioError: Naming all recordings that cannot be read.
    """
    with as_runtime(model, device) as runtime:
        if not isinstance(clips, Recordings):
            return infer_readable(runtime, model.config, clips).logits
        logits, _ = infer_samples(runtime, model.config, clips, rate=clips.sampling_rate)
        return logits


def infer_samples(
    runtime: Runtime,
    config: ModelConfig,
    clips: Iterable[NDArray[np.float32]],
    *,
    rate: int,
    total: int | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Outputs for samples as in `predict_logits`, (N, C), and who is silent, (N,).

    Args:
        runtime: The engine.
        config: The configuration of the model.
        clips: Samples (T,) of N clips, taken as they are needed.
        rate: Their rate in Hz.
        total: N, for the progress.

    Raises:
        AudioError: If a clip cannot be scored.
    """
    options = replace(_options(runtime, config), sampling_rate=rate, keep_errors=False)
    if isinstance(clips, Sized):
        total = len(clips)
    outputs = infer_recordings(iter(clips), runtime, options)
    rows, silent = [], []
    for output in Progress(outputs, "scored recordings", total=total):
        if isinstance(output, RecordingOutput):
            rows.append(join_windows(output.logits, output.weights, config))
            silent.append(SILENCE in output.quality)
    return np.stack(rows).astype(np.float32), np.array(silent, dtype=bool)


class Inferred(NamedTuple):
    """What a model says about the recordings that can be read.

    Attributes:
        utterances: The N recordings.
        logits: Logarithms of the scores of `predict`, then its dimensions, (N, C).
        silent: Whether nobody speaks in each, which `predict` answers with "silence", (N,).
        faults: The errors of the others.
    """

    utterances: list[Utterance]
    logits: NDArray[np.float32]
    silent: NDArray[np.bool_]
    faults: list[EmoserError]


def infer_readable(
    runtime: Runtime,
    config: ModelConfig,
    utterances: Sequence[Utterance],
    *,
    skip_unreadable: bool = False,
) -> Inferred:
    """Scores of all recordings that can be read, decoded on the way.

    Raises:
        AudioError: Naming all that cannot be read, unless they are left out; or if none is left.
    """
    faults: dict[int, EmoserError] = {}
    rows: dict[int, NDArray[np.float64]] = {}
    silent: dict[int, bool] = {}
    outputs = _infer_utterances(utterances, runtime, config)
    for place, output in Progress(outputs, "scored recordings", total=len(utterances)):
        if isinstance(output, EmoserError):
            if not isinstance(output, AudioError):  # not of the recording
                raise output
            faults[place] = output
            if not skip_unreadable:
                refuse_unreadable(find_unreadable(utterances) or [output], len(utterances))
        else:
            rows[place] = join_windows(output.logits, output.weights, config)
            silent[place] = SILENCE in output.quality
    if not rows:
        refuse_unreadable(list(faults.values()), len(utterances))
    kept = sorted(rows)
    logits = np.stack([rows[place] for place in kept]).astype(np.float32)
    return Inferred(
        [utterances[place] for place in kept],
        logits,
        np.array([silent[place] for place in kept], dtype=bool),
        list(faults.values()),
    )


def add_silence(
    logits: NDArray[np.float32],
    columns: Sequence[str],
    silent: NDArray[np.bool_],
    utterances: Sequence[Utterance],
) -> tuple[NDArray[np.float32], tuple[str, ...]]:
    """Logits and columns with that of silence, which is the answer wherever nobody speaks.

    They stay as they are if somebody speaks in all recordings and none is labelled so, and where
    several labels may apply at once.
    """
    several = any(item.labels is not None for item in utterances)
    if several or (not silent.any() and all(item.label != SILENCE for item in utterances)):
        return logits, tuple(columns)
    names = tuple(dict.fromkeys((*columns, SILENCE)))
    wider = np.full((len(logits), len(names)), -np.inf, np.float32)
    wider[:, : len(columns)] = logits
    wider[silent, names.index(SILENCE)] = CERTAIN
    return wider, names


def _infer_utterances(
    utterances: Sequence[Utterance], runtime: Runtime, config: ModelConfig
) -> Iterator[tuple[int, RecordingOutput | EmoserError]]:
    """Index and outputs of every utterance: whole files first, then the pieces of each file."""
    options = _options(runtime, config)
    whole = [place for place, item in enumerate(utterances) if not item.is_piece]
    yield from zip(
        whole,
        infer_recordings((utterances[place].path for place in whole), runtime, options),
        strict=True,
    )
    cut = [place for place, item in enumerate(utterances) if item.is_piece]
    files = [
        [cut[index] for index in members]
        for members in group_by_file([utterances[place] for place in cut]).values()
    ]
    recordings = (
        (
            utterances[members[0]].path,
            [Piece(utterances[place].start, utterances[place].end) for place in members],
        )
        for members in files
    )
    for file, piece, output in infer_pieces(recordings, runtime, options):
        yield files[file][piece], output


def _options(runtime: Runtime, config: ModelConfig) -> InferenceOptions:
    seconds = runtime.batch_seconds
    return InferenceOptions(
        window=round(config.max_seconds * config.sampling_rate),
        model_rate=config.sampling_rate,
        batch_samples=None if seconds is None else round(seconds * config.sampling_rate),
        keep_errors=True,
    )


@contextmanager
def as_runtime(
    model: EmotionModel, device: torch.device | None = None
) -> Iterator["_ModelRuntime"]:
    """A model as a runtime, in eval mode on a device; both are restored afterwards."""
    training, home = model.training, next(model.parameters()).device
    device = device or home
    model.to(device).eval()
    try:
        yield _ModelRuntime(model, device)
    finally:
        model.to(home).train(training)


class _ModelRuntime:
    """A runtime around a model in training, which stays unchanged."""

    group_size = 1

    def __init__(self, model: EmotionModel, device: torch.device) -> None:
        self.model = model
        self.device = device
        self.batch_seconds = None if device.type == "cpu" else BATCH_SECONDS

    def infer(self, recordings: Sequence[NDArray[np.float32]]) -> InferenceOutput:
        """Logits and embeddings of recordings of any length."""
        samples, lengths = collate(recordings)
        valid = None if len(recordings) == 1 else lengths.to(self.device)
        with torch.inference_mode(), quick_math(self.device):
            output = self.model(samples.to(self.device), valid)
        return InferenceOutput(
            output.logits.float().cpu().numpy(), output.embedding.float().cpu().numpy()
        )


def join_windows(
    logits: NDArray[np.float32], weights: NDArray[np.float64], config: ModelConfig
) -> NDArray[np.float64]:
    """Logarithms of the scores, and dimensions, of a recording from its windows, (N, C) -> (C,).

    The scores are the weighted mean over windows of softmax(logits / temperature), or of the
    sigmoid if labels are independent; dimensions are the weighted mean of their values.
    """
    values = weights @ logits[:, len(config.labels) :].astype(np.float64)
    if not config.labels:
        return np.asarray(values)
    scaled = logits[:, : len(config.labels)].astype(np.float64) / config.temperature
    if config.multi_label:
        scores = -np.logaddexp(0.0, -scaled)
    else:
        scores = scaled - np.logaddexp.reduce(scaled, axis=1, keepdims=True)
    joined = np.logaddexp.reduce(scores + np.log(weights)[:, None], axis=0)
    return np.concatenate([joined, values])
