"""`EmotionEmbedder`: embeddings of recordings as a step of a scikit-learn pipeline.

Importing this module imports scikit-learn.
"""

import os
from collections.abc import Iterable, Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from emoser.audio import Channel, Source
from emoser.checkpoints.resolve import DEFAULT_MODEL
from emoser.classifier import EmotionClassifier
from emoser.errors import missing_extra

try:
    from sklearn.base import BaseEstimator, TransformerMixin
    from sklearn.utils import Tags
    from sklearn.utils.validation import check_is_fitted
except ImportError as error:
    raise missing_extra("EmotionEmbedder", "finetune") from error


class EmotionEmbedder(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Turns recordings into the embeddings of a checkpoint, `EmotionClassifier.embed`.

    `fit` loads the checkpoint and learns nothing. A fitted embedder pickles, and clones as an
    unfitted one with the same parameters.

    Args:
        model: As for `EmotionClassifier.from_pretrained`, like the next two.
        device: Device of the model.
        backend: Engine of the model.
        sampling_rate: As for `EmotionClassifier.embed`, like the next two.
        channel: The channel of each recording.
        batch_seconds: Seconds of audio in one batch.

    Attributes:
        classifier_: The loaded classifier.

    Example:
        >>> files = ["examples/audio/plain.wav", "examples/audio/telephone.wav"]
        >>> EmotionEmbedder("emoser-tiny").fit_transform(files).shape
        (2, 240)
    """

    def __init__(
        self,
        model: str | os.PathLike[str] = DEFAULT_MODEL,
        *,
        device: str = "auto",
        backend: str = "auto",
        sampling_rate: int | None = None,
        channel: Channel = "mix",
        batch_seconds: float | None = None,
    ) -> None:
        self.model = model
        self.device = device
        self.backend = backend
        self.sampling_rate = sampling_rate
        self.channel = channel
        self.batch_seconds = batch_seconds

    def fit(self, X: Sequence[Source], y: Any = None) -> Self:  # noqa: N803  # names of sklearn
        """Load the checkpoint; the recordings are not read."""
        self.classifier_ = EmotionClassifier.from_pretrained(
            self.model, device=self.device, backend=self.backend
        )
        return self

    def transform(self, X: Iterable[Source]) -> npt.NDArray[np.float32]:  # noqa: N803
        """The embeddings of recordings, (N, D); raises as `EmotionClassifier.embed`."""
        check_is_fitted(self)
        return self.classifier_.embed(
            list(X),
            sampling_rate=self.sampling_rate,
            channel=self.channel,
            batch_seconds=self.batch_seconds,
        )

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.string = True
        tags.no_validation = True
        tags.transformer_tags.preserves_dtype = []  # embeddings are float32
        return tags
