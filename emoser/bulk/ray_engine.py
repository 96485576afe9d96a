"""A bulk job on Ray Data: one model per actor, on one machine or on a cluster.

Results are in the order of the names. An actor that dies is replaced and its recordings are
predicted again; only the calling process writes, so no row is written twice.
"""

import pickle
from collections.abc import Iterator
from typing import Any

from emoser.bulk.job import BulkJob, Labelled, open_job_classifier, predict_names
from emoser.errors import missing_extra

NAMES_PER_TASK = 16  # predicted again if an actor dies


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


def predict_with_ray(job: BulkJob, names: list[str]) -> Iterator[Labelled]:
    """The result for each recording, in their order.

    Uses the Ray instance of this process if there is one, else the cluster of `RAY_ADDRESS`, else
    this machine.

    Raises:
        DependencyError: If Ray is not installed.
    """
    try:
        import ray
        from ray.data import ActorPoolStrategy, ExecutionOptions, from_items
    except ImportError as error:
        raise missing_extra("engine='ray'", "ray") from error
    if not ray.is_initialized():
        ray.init(log_to_driver=False)
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
    )
    results.context.execution_options = ExecutionOptions(preserve_order=True)
    results.context.enable_progress_bars = False
    results.context.max_errored_blocks = 0
    for row in results.iter_rows():
        yield pickle.loads(row["result"])
