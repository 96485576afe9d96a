"""What the endpoints share: the model, the accepted requests, the limits and the metrics."""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from emoser.classifier import EmotionClassifier
from emoser.json_text import format_json
from emoser.serve.access import Access
from emoser.serve.errors import BusyError, SlowAnswerError, SlowUploadError, StoppingError
from emoser.serve.jobs import Jobs
from emoser.serve.metrics import Metrics
from emoser.serve.options import ServeOptions
from emoser.serve.uploads import Upload, receive_upload

if TYPE_CHECKING:
    from starlette.requests import Request

CLIENT_GONE = b""
RETRY_SECONDS = 10  # after which a place among the live sessions may be free

Analyse: TypeAlias = Callable[[Any], tuple[Mapping[str, Any], float]]
"""Takes the file of a recording; returns the body of the answer, and the seconds of audio."""


class Service:
    """A running service.

    Args:
        options: Its settings.
        classifier: Its model.
    """

    def __init__(self, options: ServeOptions, classifier: EmotionClassifier) -> None:
        self.options = options
        self.classifier = classifier
        self.access = Access(
            options.allowed_hosts, options.allowed_origins, token_file=options.token_file
        )
        self.jobs = Jobs(max_requests=options.max_requests)
        self.metrics = Metrics()
        self.stopping = asyncio.Event()
        self.session_threads = ThreadPoolExecutor(
            max(1, options.max_sessions), thread_name_prefix="emoser-live"
        )
        self.num_sessions = 0  # at the moment

    @contextmanager
    def open_session(self) -> Iterator[None]:
        """Hold one place among the live sessions.

        Raises:
            BusyError: If none is free.
            StoppingError: If the service stops.
        """
        if self.jobs.stopping:
            raise StoppingError("the service is stopping; connect again")
        if self.num_sessions >= self.options.max_sessions:
            raise BusyError(
                f"{self.num_sessions} live sessions are open, as many as the service accepts; "
                "connect again later",
                retry_after=RETRY_SECONDS,
            )
        self.num_sessions += 1
        try:
            with self.metrics.sessions.track_inprogress():
                yield
        finally:
            self.num_sessions -= 1

    def stop(self) -> None:
        """Refuse what is new, and end live sessions with what was found."""
        self.jobs.stopping = True
        self.stopping.set()

    async def answer(self, request: "Request", endpoint: str, analyse: Analyse) -> bytes:
        """The answer to a request as JSON; empty if its client has left.

        Raises:
            RequestError: If it is refused, or takes too long.
            AudioError: If its recording cannot be decoded or is beyond the limits.
            ValueError: If an option is out of its range.
        """
        seconds = self.options.timeout_seconds
        with self.jobs.accept(), self.metrics.accepted.track_inprogress():
            deadline = asyncio.get_running_loop().time() + seconds
            try:
                async with asyncio.timeout_at(deadline):
                    upload = await receive_upload(request, self.options.max_bytes)
            except TimeoutError as error:
                raise SlowUploadError(
                    f"the upload was not complete after {seconds:g} s; send a smaller file"
                ) from error
            work = partial(self._run, upload, endpoint, analyse)
            try:
                async with asyncio.timeout_at(deadline):
                    return await self._compute(request, upload, work)
            except TimeoutError as error:
                raise SlowAnswerError(
                    f"there was no answer after {seconds:g} s; send a shorter recording, or try "
                    "again later"
                ) from error

    async def _compute(
        self, request: "Request", upload: Upload, work: Callable[[], bytes]
    ) -> bytes:
        """The result of `work`, given up when the client leaves or the task is cancelled."""
        future = self.jobs.submit(work)
        result = asyncio.wrap_future(future)
        leaving = asyncio.ensure_future(_disconnection(request))
        try:
            await asyncio.wait((result, leaving), return_when=asyncio.FIRST_COMPLETED)
            return result.result() if result.done() else CLIENT_GONE
        finally:
            leaving.cancel()
            result.cancel()
            upload.cancel()
            if future.cancelled():  # it was not started, so nobody else closes the file
                upload.file.close()

    def _run(self, upload: Upload, endpoint: str, analyse: Analyse) -> bytes:
        with upload.file as file:
            answer, seconds = analyse(file)
        self.metrics.audio.labels(endpoint).inc(seconds)
        return format_json(answer).encode()


async def _disconnection(request: "Request") -> None:
    """Return when the client has closed the connection."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
