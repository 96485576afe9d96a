"""A bulk job: its settings, its classifier, and the predictions for some of its recordings."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, TypeAlias

from emoser.checkpoints.resolve import DEFAULT_MODEL
from emoser.labels import Labels

if TYPE_CHECKING:
    from emoser.classifier import EmotionClassifier
    from emoser.errors import EmoserError
    from emoser.results.prediction import Prediction

ENGINES = ("local", "ray")

Labelled: TypeAlias = "tuple[Prediction | EmoserError, tuple[str, ...]]"
"""A result together with the labels and dimensions of the model."""


@dataclass(frozen=True)
class BulkJob:
    """What to predict, with which model, and where to write the results.

    Attributes:
        folder: Folder of recordings, searched recursively.
        output: A .jsonl, .csv or .parquet file (Parquet needs the extra `parquet`).
        model: As for `EmotionClassifier.from_pretrained`, like the next five.
        revision: Branch, tag or commit of a Hub checkpoint.
        device: Device of the model.
        dtype: Precision of the model.
        backend: Engine of the model.
        labels: Label set of the results.
        channel: As for `EmotionClassifier.predict`.
        batch_seconds: As for `EmotionClassifier.predict_batch`.
        shard: (3, 16) processes the third of 16 parts of the folder; each part needs its own
            output.
        engine: "local", or "ray" for Ray Data actors on one machine or a cluster (extra `ray`),
            where all nodes must see the folder under the same path.
        num_actors: Number of Ray actors; as many as fit if None.

    Raises:
        ValueError: If the engine is unknown, the shard is out of range, or `num_actors` is not
            positive.
    """

    folder: str
    output: str
    model: str = DEFAULT_MODEL
    revision: str | None = None
    device: str = "auto"
    dtype: str = "auto"
    backend: str = "auto"
    labels: Labels | None = None
    channel: str | int = "mix"
    batch_seconds: float | None = None
    shard: tuple[int, int] = (1, 1)
    engine: str = "local"
    num_actors: int | None = None

    def __post_init__(self) -> None:
        if self.engine not in ENGINES:
            raise ValueError(f"engine is {self.engine!r}; use one of {', '.join(ENGINES)}")
        number, count = self.shard
        if not 1 <= number <= count:
            raise ValueError(f"shard is {number} of {count}; shards are numbered from 1 to {count}")
        if self.num_actors is not None and self.num_actors < 1:
            raise ValueError(f"num_actors is {self.num_actors}; it must be at least 1")

    @property
    def facts(self) -> dict[str, object]:
        """The settings that a resumed job must have in common with the interrupted one."""
        free = {"output", "device", "batch_seconds", "engine", "num_actors"}
        return {key: value for key, value in asdict(self).items() if key not in free}


def open_job_classifier(job: BulkJob) -> "EmotionClassifier":
    """Load the classifier of a job."""
    from emoser.classifier import EmotionClassifier

    return EmotionClassifier.from_pretrained(
        job.model,
        revision=job.revision,
        device=job.device,
        dtype=job.dtype,
        backend=job.backend,
        labels=job.labels,
    )


def predict_names(
    job: BulkJob, classifier: "EmotionClassifier", names: Iterable[str]
) -> "Iterator[Labelled]":
    """The results for some recordings of a job in their order; errors are returned, not raised."""
    columns = (*classifier.labels, *classifier.dimensions)
    for result in classifier.iter_predictions(
        names, channel=job.channel, batch_seconds=job.batch_seconds, on_error="return"
    ):
        yield result, columns
