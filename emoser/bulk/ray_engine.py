"""A bulk job on Ray Data: one model per actor, on one machine or on a cluster.

Results are in the order of the names. An actor that dies is replaced and its recordings are
predicted again; if they end it each time, they are predicted one by one, and the recording that
does it becomes a row with its error. Only the calling process writes, so no row is written twice.
"""

import pickle
from collections.abc import Iterator, Sequence
from typing import Any

from emoser.bulk.job import BulkJob, Labelled, open_job_classifier, predict_names
from emoser.errors import AudioError, missing_extra

NAMES_PER_TASK = 16  # predicted again if an actor dies
MAX_RETRIES = 2  # of a task whose actor dies; Ray's default is to retry for ever


class Predictor:
    """An actor: loads the model of a job once and predicts batches of recordings."""

    def __init__(self, job: BulkJob) -> None:
        self._job = job
        self._classifier = open_job_classifier(job)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[bytes]]:
        """The results for a batch of pickled names, each pickled."""
        names = map(pickle.loads, batch["name"])
        results = predict_names(self._job, self._classifier, names)
        return {"result": [pickle.dumps(result) for result in results]}

    def columns(self) -> tuple[str, ...]:
        """The labels and dimensions of the model."""
        return (*self._classifier.labels, *self._classifier.dimensions)


def predict_with_ray(job: BulkJob, names: list[str]) -> Iterator[Labelled]:
    """The result for each recording, in their order.

    Uses the Ray instance of this process if there is one, else the cluster of `RAY_ADDRESS`, else
    this machine.

    Raises:
        DependencyError: If Ray is not installed.
    """
    try:
        import ray
    except ImportError as error:
        raise missing_extra("engine='ray'", "ray") from error
    if not ray.is_initialized():
        ray.init(log_to_driver=False)
    done = 0
    while done < len(names):
        try:
            for result in _predict_in_pool(job, names[done:]):
                yield result
                done += 1
        except (ray.exceptions.RayActorError, ray.exceptions.WorkerCrashedError):
            suspects = names[done : done + NAMES_PER_TASK]
            yield from _predict_one_by_one(job, suspects)
            done += len(suspects)


def _predict_in_pool(job: BulkJob, names: Sequence[str]) -> Iterator[Labelled]:
    """The results in order, from as many actors as the job asks for."""
    import ray
    from ray.data import ActorPoolStrategy, ExecutionOptions, from_items

    has_gpu = job.device.startswith("cuda")
    num_free = ray.cluster_resources().get("GPU" if has_gpu else "CPU", 1.0)
    # File names that are not valid Unicode cannot be Arrow strings, hence pickled.
    rows = [{"name": pickle.dumps(name)} for name in names]
    num_tasks = -(-len(names) // NAMES_PER_TASK)
    results = from_items(rows, override_num_blocks=num_tasks).map_batches(
        Predictor,
        fn_constructor_args=(job,),
        batch_size=NAMES_PER_TASK,
        compute=ActorPoolStrategy(size=min(job.num_actors or max(1, int(num_free)), num_tasks)),
        num_gpus=1 if has_gpu else None,
        max_task_retries=MAX_RETRIES,
    )
    results.context.execution_options = ExecutionOptions(preserve_order=True)
    results.context.enable_progress_bars = False
    results.context.max_errored_blocks = 0
    for row in results.iter_rows():
        yield pickle.loads(row["result"])


def _predict_one_by_one(job: BulkJob, names: Sequence[str]) -> Iterator[Labelled]:
    """The results from one actor; a recording that ends it gets an error that names it."""
    import ray

    actor, columns = None, ()
    for name in names:
        if actor is None:
            num_gpus = 1 if job.device.startswith("cuda") else 0
            actor = ray.remote(num_gpus=num_gpus)(Predictor).remote(job)
            columns = ray.get(actor.columns.remote())
        try:
            answer = ray.get(actor.__call__.remote({"name": [pickle.dumps(name)]}))
            yield pickle.loads(answer["result"][0])
        except ray.exceptions.RayActorError:
            actor = None
            yield (
                AudioError(
                    f"{name} ended the process that predicted it, as a lack of memory or a "
                    "damaged file can; predict it alone to see why"
                ),
                columns,
            )
