"""A bulk job on Ray Data: one model per actor, on one machine or on a cluster.

Names in, answers out, in the order of the names whatever the actors do. An actor that dies is
replaced and its recordings are done again; only the caller writes, so no row comes twice.
"""

import os
import pickle
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from emoser.bulk import BulkJob, Labelled, open_job_classifier, predict_names
from emoser.errors import missing_extra

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

NAMES_PER_TASK = 16  # lost and done again when an actor dies


class Predictor:
    """One actor: loads the model of a job once, then predicts batches of names."""

    def __init__(self, job: BulkJob) -> None:
        self._job = job
        self._classifier = open_job_classifier(job)

    def __call__(
        self, batch: "dict[str, npt.NDArray[Any]]"
    ) -> "dict[str, npt.NDArray[np.object_]]":
        """Answers for a batch of names, pickled together with the labels."""
        import numpy as np

        names = [os.fsdecode(name) for name in batch["name"]]
        answers = predict_names(self._job, self._classifier, names)
        rows = [pickle.dumps((answer, self._classifier.labels)) for answer in answers]
        return {"answer": np.array(rows, dtype=object)}


def predict_with_ray(job: BulkJob, names: list[str]) -> Iterator[Labelled]:
    """The answer for each recording, in their order, and the labels of the model.

    Uses the Ray that the program has started, or the cluster that `RAY_ADDRESS` names, or else
    this machine.

    Raises:
        DependencyError: If Ray is not installed.
    """
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise missing_extra("engine='ray'", "ray") from error
    raise NotImplementedError
