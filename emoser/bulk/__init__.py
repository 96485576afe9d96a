"""Prediction for folders of any size, resumable and safe against interruption at any time.

A job predicts one folder with one model into one output file and writes each row as soon as it is
there. Started again after an interruption, it continues where it stopped; in the end each file has
exactly one row, in the order of the folder.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from emoser.audio.folders import choose_shard, find_recordings
from emoser.bulk.job import ENGINES, BulkJob, Labelled, open_job_classifier, predict_names

__all__ = ["ENGINES", "BulkJob", "BulkSummary", "open_job_classifier", "predict_folder"]


@dataclass(frozen=True)
class BulkSummary:
    """The result of a job.

    Attributes:
        num_files: Number of recordings in the shard, all of which have a row.
        num_before: Number of those written by an earlier run.
        num_errors: Number of rows with an error instead of a prediction.
    """

    num_files: int
    num_before: int
    num_errors: int


def predict_folder(job: BulkJob, *, progress: bool = False) -> BulkSummary:
    """Predict all recordings that are not in the output yet.

    The settings are stored next to the output in `<output>.job`, which a running job locks. Rows
    are in the order of the folder; files added after an interruption follow at the end.

    Args:
        job: What to predict.
        progress: Show files per second and the remaining time if standard error is a terminal.

    Raises:
        AudioError: If the folder contains no audio file.
        BlockingIOError: If another process is writing this output.
        CheckpointError: If the model cannot be loaded; likewise HubError and DeviceError.
        DependencyError: If the format or the engine needs a package that is not installed.
        FileExistsError: If the output belongs to another job.
        FileNotFoundError: If the folder of the output does not exist.
        ValueError: If the suffix of the output is not supported.

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
            _predict(job, todo),
            total=len(names),
            initial=num_before,
            unit="file",
            disable=None if progress else True,
        )
        for name, (result, labels) in zip(todo, bar, strict=True):
            output.write(name, result, labels)
    return BulkSummary(len(names), num_before, output.num_errors)


def _predict(job: BulkJob, names: list[str]) -> Iterator[Labelled]:
    """The results in the order of the names."""
    if not names:
        return iter(())
    if job.engine == "ray":
        from emoser.bulk.ray_engine import predict_with_ray

        return predict_with_ray(job, names)
    return predict_names(job, open_job_classifier(job), names)
