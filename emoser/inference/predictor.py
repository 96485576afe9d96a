"""From recordings to predictions and embeddings: an opened model with its labels and limits."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from emoser.audio import AudioLimits, Channel, Source
from emoser.audio.limits import DEFAULT_LIMITS
from emoser.audio.wrappers import is_source
from emoser.errors import EmoserError
from emoser.inference.adaptation import check_adaptable, estimate_adaptation
from emoser.inference.batching import InferenceOptions, RecordingOutput, infer_recordings
from emoser.inference.pieces import Piece, infer_pieces
from emoser.inference.scoring import Scorer, score_labels
from emoser.labels import PLACEHOLDER, LabelMap, Labels, map_labels, order_dimensions
from emoser.models.adaptation import Adaptation
from emoser.results.prediction import Prediction
from emoser.runtimes import FrameAdapter, FrameRuntime, OpenedModel

Answer = TypeVar("Answer")

ON_ERROR = ("raise", "return")


@dataclass(frozen=True)
class BatchOptions:
    """How many recordings are read, as for `EmotionClassifier.predict_batch`.

    Raises:
        ValueError: If an option is out of its range.
    """

    sampling_rate: int | None = None
    channel: Channel = "mix"
    batch_seconds: float | None = None
    on_error: str = "raise"

    def __post_init__(self) -> None:
        if self.on_error not in ON_ERROR:
            raise ValueError(f"on_error is {self.on_error!r}; use one of {', '.join(ON_ERROR)}")
        if self.batch_seconds is not None and not self.batch_seconds > 0:
            raise ValueError(f"batch_seconds is {self.batch_seconds}; it must be above 0")


class Predictor:
    """Predicts recordings with an opened model.

    Args:
        opened: The model.
        labels: As for `EmotionClassifier.from_pretrained`.
        limits: Recordings beyond these are refused.

    Attributes:
        runtime: The engine.
        config: The configuration of the model.
        label_map: From the checkpoint's labels to those of predictions; None if they are equal.
        labels: The labels of predictions; the checkpoint's in logit order unless mapped.
        dimensions: The dimensions of predictions, mostly none.
    """

    def __init__(
        self,
        opened: OpenedModel,
        *,
        labels: Labels | None = None,
        limits: AudioLimits = DEFAULT_LIMITS,
    ) -> None:
        self.runtime = opened.runtime
        self.config = opened.config
        self.limits = limits
        self._name = opened.info.name
        self.label_map: LabelMap | None = None
        if labels is not None:
            raw = self.config.raw_labels[: len(self.config.labels)]
            self.label_map = map_labels(self.config.labels, labels, raw=raw)
        self.labels = self.config.labels if self.label_map is None else self.label_map.labels
        self.dimensions = tuple(order_dimensions(dict.fromkeys(self.config.dimensions, 0.0)))

    @property
    def scorer(self) -> Scorer:
        """The runtime, and how its logits become scores."""
        runtime, frame_seconds = self.runtime, self.config.frame_seconds
        by_frame = None
        if frame_seconds is not None and isinstance(runtime, FrameRuntime):
            by_frame = FrameAdapter(runtime)
        return Scorer(
            runtime=by_frame or runtime,
            to_scores=lambda logits: self._average(logits[np.newaxis], np.ones(1))[0],
            to_dimensions=self._name_dimensions,
            labels=self.labels,
            dimensions=self.dimensions,
            sampling_rate=self.config.sampling_rate,
            model=self._name,
            frame_seconds=None if by_frame is None else frame_seconds,
        )

    @property
    def given_names(self) -> tuple[str, ...]:
        """The names that the user gave to outputs without names; empty for any other map."""
        outputs, given = self.config.labels, self.label_map
        if given is None or given.targets != tuple(range(len(outputs))):
            return ()
        return given.labels if all(map(PLACEHOLDER.fullmatch, outputs)) else ()

    def predict(
        self, sources: Iterable[Source], options: BatchOptions
    ) -> Iterator[Prediction | EmoserError]:
        """The prediction of each recording in order, or its error where errors are returned."""
        outputs = self._infer(sources, options)
        return (self.conclude(output) for output in outputs)  # which can be closed

    def infer_pieces(
        self, source: Source, pieces: Sequence[Piece], options: BatchOptions
    ) -> Iterator[tuple[int, RecordingOutput | EmoserError]]:
        """Index and outputs of each piece of a recording, in the order of their ends.

        An error is raised, or takes the place of the outputs where errors are returned.
        """
        for _, place, output in infer_pieces(
            [(source, pieces)], self.runtime, self._inference(options)
        ):
            if isinstance(output, EmoserError) and options.on_error == "raise":
                raise output
            yield place, output

    def predict_piece(
        self, source: Source, piece: Piece, options: BatchOptions
    ) -> Iterator[Prediction | EmoserError]:
        """The prediction of one piece, the only item.

        Raises:
            ValueError: If the piece is empty.
        """
        start, end = piece.start or 0.0, math.inf if piece.end is None else piece.end
        if not 0 <= start < math.inf or not start < end:
            raise ValueError(
                f"the piece from {piece.start} to {piece.end} s is empty; start must be at least "
                "0 and end after it"
            )
        whole = piece._replace(end=None if end == math.inf else end)
        outputs = self.infer_pieces(source, [whole], options)
        return (self.conclude(output) for _, output in outputs)

    def embed(
        self, sources: Iterable[Source], options: BatchOptions
    ) -> Iterator[npt.NDArray[np.float32] | EmoserError]:
        """The embedding of each recording, (D,), or its error."""
        outputs = self._infer(sources, options)
        return (item if isinstance(item, EmoserError) else item.embedding for item in outputs)

    def adapt(self, sources: Iterable[Source], options: BatchOptions) -> Adaptation:
        """The adaptation to the speaker of recordings; see `emoser.inference.adaptation`.

        Raises:
            CheckpointError: If the model cannot be adapted.
            ValueError: If there are too few recordings.
        """
        self.check_adaptable()
        outputs = self._infer(sources, options)
        return estimate_adaptation(
            (output for output in outputs if isinstance(output, RecordingOutput)), self.config
        )

    def check_adaptable(self) -> None:
        """Refuse a model that cannot be adapted to a speaker, as `adapt` does."""
        check_adaptable(self.config, self._name)

    def _infer(
        self, sources: Iterable[Source], options: BatchOptions
    ) -> Iterator[RecordingOutput | EmoserError]:
        is_table = getattr(sources, "ndim", 1) > 1  # iterating it would give names of columns
        if is_source(sources) or is_table or not isinstance(sources, Iterable):
            raise TypeError(
                f"sources is one {type(sources).__name__}; pass a list of them, or use predict"
            )
        return infer_recordings(sources, self.runtime, self._inference(options))

    def _inference(self, options: BatchOptions) -> InferenceOptions:
        rate, seconds = self.config.sampling_rate, options.batch_seconds
        seconds = self.runtime.batch_seconds if seconds is None else seconds
        return InferenceOptions(
            window=round(self.config.max_seconds * rate),
            model_rate=rate,
            sampling_rate=options.sampling_rate,
            channel=options.channel,
            batch_samples=None if seconds is None else round(seconds * rate),
            keep_errors=options.on_error == "return",
            limits=self.limits,
        )

    def _average(
        self, logits: npt.NDArray[np.float32], weights: npt.NDArray[np.float64]
    ) -> tuple[list[float], float]:
        """Mean scores of chunks, (N, C) -> one per label, and that of labels without a place."""
        if not self.config.labels:
            return [], 0.0
        values = [float(value) for value in weights @ score_labels(logits, self.config)]
        if self.label_map is None:
            return values, 0.0
        return self.label_map.apply(values, multi_label=self.config.multi_label)

    def conclude(self, output: RecordingOutput | EmoserError) -> Prediction | EmoserError:
        """The prediction by the outputs for a recording; an error stays as it is."""
        if isinstance(output, EmoserError):
            return output
        values, unmapped = self._average(output.logits, output.weights)
        return Prediction.from_scores(
            dict(zip(self.labels, values, strict=True)),
            duration=output.duration,
            quality=output.quality,
            dimensions=self._name_dimensions(output.weights @ output.logits),
            model=self._name,
            source=output.source,
            num_windows=len(output.windows),
            unmapped=unmapped,
        )

    def _name_dimensions(self, logits: npt.NDArray[Any]) -> dict[str, float] | None:
        """Values by name, (C,) -> in the order arousal, dominance, valence; None without any."""
        if not self.config.dimensions:
            return None
        values = map(float, logits[len(self.config.labels) :])
        return order_dimensions(dict(zip(self.config.dimensions, values, strict=True)))


def collect_answers(
    answers: Iterator[Answer], sources: Iterable[Source], *, progress: bool
) -> list[Answer]:
    """All answers, with a progress bar if it is wanted and standard error is a terminal."""
    if not progress:
        return list(answers)
    from tqdm import tqdm

    total = len(sources) if isinstance(sources, Sequence) else None
    return list(tqdm(answers, total=total, unit="file", disable=None))
