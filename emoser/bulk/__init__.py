"""Folders of any size, predicted into one file that survives everything but the disk.

A job is a folder, a model and an output. It writes each row as it comes; started again after
whatever stopped it, it goes on where it was, and in the end every file has exactly one row, in
the order of the folder. Knows nothing of the command line.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, TypeAlias

from emoser.audio.folders import choose_shard, find_recordings
from emoser.checkpoints.resolve import DEFAULT_MODEL
from emoser.errors import EmoserError

if TYPE_CHECKING:
    from emoser.classifier import EmotionClassifier
    from emoser.results.prediction import Prediction

__all__ = ["ENGINES", "BulkJob", "BulkSummary", "open_job_classifier", "predict_folder"]

Labelled: TypeAlias = "tuple[Prediction | EmoserError, tuple[str, ...]]"

ENGINES = ("local", "ray")


@dataclass(frozen=True)
class BulkJob:
    """What is predicted, with what, and where to.

    Attributes:
        folder: Searched for recordings, with the folders in it.
        output: A .jsonl, .csv or .parquet file (Parquet needs the extra `parquet`).
        model: As for `EmotionClassifier.from_pretrained`, like the next five.
        revision: Branch, tag or commit of a Hub checkpoint.
        device: Where the model runs.
        dtype: In which precision.
        backend: With which engine.
        labels: In which set of labels it answers.
        channel: As for `EmotionClassifier.predict`.
        batch_seconds: As for `EmotionClassifier.predict_batch`.
        shard: (3, 16) does the third of sixteen parts of the folder; each needs an own output.
        engine: "local", or "ray" for actors of Ray Data on one machine or a cluster (extra
            `ray`), which must all see the folder under the same name.
        num_actors: Actors of Ray; as many as it has room for when None.
    """

    folder: str
    output: str
    model: str = DEFAULT_MODEL
    revision: str | None = None
    device: str = "auto"
    dtype: str = "auto"
    backend: str = "auto"
    labels: str | Mapping[str, str] | None = None
    channel: str | int = "mix"
    batch_seconds: float | None = None
    shard: tuple[int, int] = (1, 1)
    engine: str = "local"
    num_actors: int | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be.

        Raises:
            ValueError: If the engine is unknown or the shard is not among its parts.
        """
        if self.engine not in ENGINES:
            raise ValueError(f"engine is {self.engine!r}; use one of {', '.join(ENGINES)}")
        number, count = self.shard
        if not 1 <= number <= count:
            raise ValueError(f"shard {number} of {count} does not exist; they count from 1")
        if self.num_actors is not None and self.num_actors < 1:
            raise ValueError(f"num_actors is {self.num_actors}; it must be at least 1")

    @property
    def facts(self) -> dict[str, object]:
        """What a later run must have in common with this one, so that rows stay comparable."""
        free = {"output", "device", "batch_seconds", "engine", "num_actors"}
        return {key: value for key, value in asdict(self).items() if key not in free}


@dataclass(frozen=True)
class BulkSummary:
    """How a job ended.

    Attributes:
        num_files: Recordings in this shard, each with its row now.
        num_before: Those that an earlier run had done.
        num_errors: Rows that hold an error instead of an answer.
    """

    num_files: int
    num_before: int
    num_errors: int


def predict_folder(job: BulkJob, *, progress: bool = False) -> BulkSummary:
    """Predict what is not in the output yet.

    Beside the output lies `<output>.job`, which tells a later run what this one was; a job that
    runs holds a lock on it. Rows are written in the order of the folder; files that came since
    an earlier run follow at the end.

    Args:
        job: What to do.
        progress: Show files per second and the time left when the standard error is a terminal.

    Raises:
        AudioError: If the folder holds no audio file.
        BlockingIOError: If another process works on this output.
        CheckpointError: If the model cannot be loaded; likewise HubError and DeviceError.
        DependencyError: If the format or the engine needs a package that is not installed.
        FileExistsError: If the output is not of this job.
        ValueError: If the suffix of the output is none that emoser writes.

    Example:
        >>> job = BulkJob("archive", "results.jsonl", shard=(3, 16))
        >>> predict_folder(job)  # doctest: +SKIP
        BulkSummary(num_files=62500, num_before=0, num_errors=12)
    """
    from tqdm import tqdm

    from emoser.bulk.output import open_output

    names = choose_shard(find_recordings(job.folder), *job.shard)
    with open_output(job.output, job.facts) as output:
        todo = [name for name in names if not output.holds(name)]
        num_before = len(names) - len(todo)
        bar = tqdm(
            _answer(job, todo),
            total=len(names),
            initial=num_before,
            unit="file",
            disable=None if progress else True,
        )
        for name, (answer, labels) in zip(todo, bar, strict=True):
            output.write(name, answer, labels)
    return BulkSummary(len(names), num_before, output.num_errors)


def open_job_classifier(job: BulkJob) -> "EmotionClassifier":
    """The classifier that a job asks for."""
    from emoser.classifier import EmotionClassifier

    return EmotionClassifier.from_pretrained(
        job.model,
        revision=job.revision,
        device=job.device,
        dtype=job.dtype,
        backend=job.backend,
        labels=job.labels,
    )


def _answer(job: BulkJob, names: list[str]) -> "Iterator[Labelled]":
    """The answer for each recording, in their order, and the labels of the model."""
    if not names:
        return
    if job.engine == "ray":
        from emoser.bulk.ray_engine import predict_with_ray

        yield from predict_with_ray(job, names)
        return
    classifier = open_job_classifier(job)
    columns = (*classifier.labels, *classifier.dimensions)
    for answer in predict_names(job, classifier, names):
        yield answer, columns


def predict_names(
    job: BulkJob, classifier: "EmotionClassifier", names: Iterable[str]
) -> "Iterator[Prediction | EmoserError]":
    """The answers for some recordings of a job, in their order; a fault is an answer too."""
    return classifier.iter_predictions(
        names, channel=job.channel, batch_seconds=job.batch_seconds, on_error="return"
    )
