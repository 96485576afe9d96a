"""Adapt a model to one speaker by recordings without labels.

The head is trained on speakers whose embeddings have some mean; those of another voice have
another, and the difference looks like an emotion. It is subtracted. With a linear head W, the
subtraction of a vector d from the embedding subtracts W d from the logits, and the mean of a
speaker's logits is the head's answer to the mean of the speaker's embeddings. So the logits are all
that is needed, whatever engine computes them.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from emoser.errors import CheckpointError
from emoser.inference.batching import RecordingOutput
from emoser.models.adaptation import Adaptation
from emoser.models.config import ModelConfig
from emoser.results.segments import SILENCE
from emoser.runtimes import InferenceOutput, OpenedModel, Runtime, Samples
from emoser.text import counted

# Measured by examples/bundled/measure_adaptation.py.
MIN_RECORDINGS = 8  # the fewest with a clear gain on all of its corpora
SHRINKAGE = 8  # recordings that the training speakers count for


class ShiftedRuntime:
    """A runtime whose logits are those of another, minus a shift for each label.

    Embeddings stay as they are.
    """

    def __init__(self, runtime: Runtime, shift: Sequence[float]) -> None:
        self.runtime = runtime
        self.batch_seconds = runtime.batch_seconds
        self.group_size = runtime.group_size
        self._shift = np.asarray(shift, np.float32)

    def infer(self, recordings: Sequence[Samples]) -> InferenceOutput:
        """Logits and embeddings of recordings."""
        logits, embeddings = self.runtime.infer(recordings)
        return InferenceOutput(logits - self._shift, embeddings)


def adapt_output(output: RecordingOutput, adaptation: Adaptation) -> RecordingOutput:
    """What the adapted model would have given for the same recording."""
    return replace(output, logits=output.logits - np.asarray(adaptation.shift, np.float32))


def has_speech(output: RecordingOutput) -> bool:
    """Whether a recording counts for an adaptation."""
    return SILENCE not in output.quality


def adapt_model(opened: OpenedModel, adaptation: Adaptation | None) -> OpenedModel:
    """The model with an adaptation; the model itself without one."""
    if adaptation is None:
        return opened
    runtime = ShiftedRuntime(opened.runtime, adaptation.shift)
    return replace(opened, runtime=runtime, config=adaptation.mark(opened.config))


def check_adaptable(config: ModelConfig, name: str) -> None:
    """Refuse a model that cannot be adapted to a speaker.

    Raises:
        CheckpointError: If its head is not linear, it does not state `mean_logits`, or it is
            adapted already.
    """
    if config.adapted_recordings:
        raise CheckpointError(
            f"{name} is adapted to {config.adapted_recordings} recordings of a speaker already; "
            "adapt the model that it was made from"
        )
    if not config.is_linear:
        raise CheckpointError(
            f"{name} cannot be adapted: this needs labels that exclude one another and a linear "
            "head on pooled frames; use emoser-small, or fine-tune with such a head"
        )
    if not config.mean_logits:
        raise CheckpointError(
            f"{name} does not state mean_logits, the mean logits of its training speakers, and "
            "cannot be adapted; use emoser-small or emoser-tiny, or fine-tune it with `emoser "
            "finetune`, which writes them into the block emoser of config.json"
        )


def estimate_adaptation(
    outputs: Iterable[RecordingOutput], config: ModelConfig, *, minimum: int = MIN_RECORDINGS
) -> Adaptation:
    """The adaptation to a speaker by the model's outputs for recordings of that speaker.

    Silent recordings do not count.

    Args:
        outputs: Of the model without adaptation.
        config: That of the model; see `check_adaptable`.
        minimum: Fewer recordings are refused.

    Raises:
        ValueError: If there are fewer.
    """
    voiced = list(filter(has_speech, outputs))
    if len(voiced) < minimum:
        raise ValueError(
            f"{counted(len(voiced), 'recording')} with speech cannot adapt to a speaker; give at "
            f"least {minimum}, of all emotions"
        )
    rows = np.array([output.weights @ output.logits for output in voiced])
    return Adaptation(tuple(map(float, shift_logits(rows, config.mean_logits))), len(voiced))


def shift_logits(
    logits: npt.NDArray[np.floating], mean_logits: Sequence[float], *, shrinkage: float = SHRINKAGE
) -> npt.NDArray[np.float64]:
    """What to subtract from the logits of a speaker, (C,).

    The difference between the mean of the speaker's logits and that of the training speakers,
    times n / (n + shrinkage): n recordings say little about a mean if they are few.

    Args:
        logits: Of n recordings of the speaker, (n, C).
        mean_logits: Of the training speakers, (C,).
        shrinkage: Recordings that the training speakers count for.

    Example:
        >>> shift_logits(np.array([[3.0, 0.0]] * 8), [1.0, 0.0]).tolist()
        [1.0, 0.0]
    """
    difference = np.asarray(logits, np.float64).mean(axis=0) - np.asarray(mean_logits)
    return np.asarray(difference * (len(logits) / (len(logits) + shrinkage)))
