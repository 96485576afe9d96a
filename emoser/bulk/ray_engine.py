"""A bulk job on Ray Data: one model per actor, on one machine or on a cluster.

Names in, answers out, in the order of the names whatever the actors do. An actor that dies is
replaced and its recordings are done again; only the caller writes, so no row comes twice.
"""

import pickle
from collections.abc import Iterator
from typing import Any

from emoser.bulk import BulkJob, Labelled, open_job_classifier, predict_names
from emoser.errors import missing_extra

NAMES_PER_TASK = 16  # done again when an actor dies


class Predictor:
    """One actor: loads the model of a job once, then predicts batches of names."""

    def __init__(self, job: BulkJob) -> None:
        self._job = job
        self._classifier = open_job_classifier(job)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[bytes]]:
        """Answers for a batch of names, each pickled together with the labels."""
        names = [pickle.loads(name) for name in batch["name"]]
        answers = predict_names(self._job, self._classifier, names)
        columns = (*self._classifier.labels, *self._classifier.dimensions)
        return {"answer": [pickle.dumps((answer, columns)) for answer in answers]}


def predict_with_ray(job: BulkJob, names: list[str]) -> Iterator[Labelled]:
    """The answer for each recording, in their order, and the labels of the model.

    Uses the Ray that the program has started, or the cluster that `RAY_ADDRESS` names, or else
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
    room = ray.cluster_resources().get("GPU" if has_gpu else "CPU", 1.0)
    # Pickled names keep what is no valid text; Arrow would refuse it.
    rows = [{"name": pickle.dumps(name)} for name in names]
    num_tasks = max(1, -(-len(names) // NAMES_PER_TASK))
    answers = from_items(rows, override_num_blocks=num_tasks).map_batches(
        Predictor,
        fn_constructor_args=(job,),
        batch_size=NAMES_PER_TASK,
        compute=ActorPoolStrategy(size=min(job.num_actors or max(1, int(room)), num_tasks)),
        num_gpus=1 if has_gpu else None,
    )
    answers.context.execution_options = ExecutionOptions(preserve_order=True)
    answers.context.enable_progress_bars = False
    answers.context.max_errored_blocks = 0
    for row in answers.iter_rows():
        yield pickle.loads(row["answer"])
