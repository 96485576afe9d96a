"""The requests that a service has accepted: bounded in number and in time, and run in threads."""

import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from emoser.serve.errors import BusyError, StoppingError

MAX_THREADS = 16  # they decode and wait for the model; further requests wait for a thread
SMOOTHING = 0.1  # weight of the newest request in the mean duration

Result = TypeVar("Result")


class Jobs:
    """Accepts requests up to a number and runs their work in threads.

    Args:
        max_requests: The number.

    Example:
        >>> jobs = Jobs(max_requests=1)
        >>> with jobs.accept():
        ...     print(jobs.submit(lambda: 1 + 1).result(), jobs.num_accepted)
        2 1
    """

    def __init__(self, *, max_requests: int) -> None:
        self.num_accepted = 0  # at the moment
        self.stopping = False
        self._max_requests = max_requests
        self._num_threads = min(max_requests, MAX_THREADS)
        self._executor = ThreadPoolExecutor(self._num_threads, thread_name_prefix="emoser-serve")
        self._mean_seconds = 0.0

    @contextmanager
    def accept(self) -> Iterator[None]:
        """Hold one place among the accepted requests.

        Raises:
            BusyError: If none is free.
            StoppingError: If the service stops.
        """
        if self.stopping:
            raise StoppingError("the service is stopping; send the request again")
        if self.num_accepted >= self._max_requests:
            raise BusyError(
                f"{self.num_accepted} requests are running or waiting, as many as the service "
                "accepts; send this one again later",
                retry_after=self._wait_seconds(),
            )
        self.num_accepted += 1
        start = time.monotonic()
        try:
            yield
        finally:
            self.num_accepted -= 1
            taken = (time.monotonic() - start) / (self.num_accepted + 1)
            self._mean_seconds += SMOOTHING * (taken - self._mean_seconds)

    def submit(self, work: Callable[[], Result]) -> Future[Result]:
        """Run a function in a thread, after those that were submitted before."""
        return self._executor.submit(work)

    def close(self) -> None:
        """Start nothing more; what runs ends by itself."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _wait_seconds(self) -> int:
        """After how many whole seconds half of the accepted requests should be done."""
        return max(1, math.ceil(self._mean_seconds * self.num_accepted / 2))
