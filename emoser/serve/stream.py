"""The WebSocket of live audio: chunks of sound in, windows and segments out as JSON.

Messages of the client: binary chunks, and the text `end`. Messages of the service are objects
with a `type`: `ready`, `window`, `segment`, `current`, `error` and, last, `done`.
"""

import asyncio
import math
from collections.abc import Mapping
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from emoser.audio.live import PcmFormat
from emoser.inference.options import TimelineOptions
from emoser.serve.access import SUBPROTOCOL
from emoser.serve.errors import HANDLED, BusyError, RequestError, SlowUploadError, describe
from emoser.serve.live import BytePipe, LiveSession, LiveUpdate, analyse_live
from emoser.serve.service import Service

ENDPOINT = "/v1/stream"
END = "end"
CONTAINER = "container"
FORMATS = (CONTAINER, "s16le", "f32le")
NUMBERS = ("window_seconds", "hop_seconds", "smoothing", "threshold")
NORMAL, GOING_AWAY, BAD_DATA, REFUSED, INTERNAL, BUSY = 1000, 1001, 1007, 1008, 1011, 1013


async def handle_stream(websocket: WebSocket, service: Service) -> None:
    """Serve one live session until its client ends it, or a limit or the service does."""
    offered = websocket.scope.get("subprotocols", ())
    await websocket.accept(SUBPROTOCOL if SUBPROTOCOL in offered else None)
    connection = _Connection(websocket, service)
    try:
        with service.open_session():
            code = await connection.run()
    except WebSocketDisconnect:
        return
    except (RequestError, *HANDLED) as error:
        code = await connection.explain(error)
    if websocket.client_state is WebSocketState.CONNECTED:
        await websocket.close(code)


class _Connection:
    """The tasks of one session: receive into a pipe, analyse it in a thread, send what is found."""

    def __init__(self, websocket: WebSocket, service: Service) -> None:
        self._websocket = websocket
        self._service = service
        self._loop = asyncio.get_running_loop()
        self._space = asyncio.Event()
        self._pipe = BytePipe(lambda: self._post(self._space.set))
        self._found: asyncio.Queue[LiveUpdate | None] = asyncio.Queue()
        self._seconds = 0.0

    async def run(self) -> int:
        """Serve the session; returns the code to close with.

        Raises:
            AudioError: If the sound cannot be decoded, or is too long.
            RequestError: If the client is silent for too long.
            ValueError: If an option of the query is out of its range.
        """
        options, pcm = _read_query(self._websocket.query_params)
        analysis = self._start(options, pcm)
        receiving = asyncio.ensure_future(self._receive())
        answering = asyncio.gather(analysis, self._send(options))
        answering.add_done_callback(lambda future: future.cancelled() or future.exception())
        try:
            await asyncio.wait((answering, receiving), return_when=asyncio.FIRST_COMPLETED)
            if not answering.done():
                receiving.result()  # raises what ended it early
            damaged, _ = await answering
            return await self._finish(damaged=damaged)
        finally:
            self._pipe.close(discard=True)
            receiving.cancel()
            answering.cancel()

    async def explain(self, error: Exception) -> int:
        """Send an error; returns the code to close with."""
        if self._websocket.client_state is WebSocketState.CONNECTED:
            await self._websocket.send_json({"type": "error", **describe(error)})
        if isinstance(error, BusyError):
            return BUSY
        return REFUSED if isinstance(error, RequestError) else BAD_DATA

    def _start(self, options: Mapping[str, Any], pcm: PcmFormat | None) -> "asyncio.Future[bool]":
        classifier, limit = self._service.classifier, self._service.options.max_seconds

        def start(rate: int) -> LiveSession:
            return LiveSession(classifier, sampling_rate=rate, **options)

        def emit(update: LiveUpdate | None) -> None:
            self._post(self._found.put_nowait, update)

        def analyse() -> bool:
            try:
                return analyse_live(self._pipe, start, emit, pcm, limit)
            finally:
                emit(None)

        return self._loop.run_in_executor(self._service.session_threads, analyse)

    async def _receive(self) -> None:
        """Write chunks into the pipe until the client ends, or the service stops."""
        stopped = asyncio.ensure_future(self._service.stopping.wait())
        try:
            while True:
                received = asyncio.ensure_future(self._websocket.receive())
                done, _ = await asyncio.wait(
                    (received, stopped),
                    timeout=self._service.options.timeout_seconds,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                if received not in done:
                    received.cancel()
                    if stopped.done():
                        break
                    raise SlowUploadError(
                        f"nothing arrived for {self._service.options.timeout_seconds:g} s; begin "
                        "another session"
                    )
                message = received.result()
                if message["type"] == "websocket.disconnect":
                    raise WebSocketDisconnect(message.get("code", NORMAL))
                if (data := message.get("bytes")) is not None:
                    await self._write(data)
                elif message.get("text", "").strip() == END:
                    break
                else:
                    raise ValueError(f"a text message is not known; send sound, or {END!r}")
        finally:
            stopped.cancel()
        self._pipe.close()

    async def _write(self, data: bytes) -> None:
        while self._pipe.is_full:
            self._space.clear()
            await self._space.wait()
        self._pipe.write(data)

    async def _send(self, options: Mapping[str, Any]) -> None:
        """Send what is found until the analysis ends."""
        classifier = self._service.classifier
        outputs = {"labels": list(classifier.labels), "dimensions": list(classifier.dimensions)}
        name = classifier.info.name
        await self._websocket.send_json({"type": "ready", **outputs, "model": name, **options})
        while (update := await self._found.get()) is not None:
            self._seconds = update.seconds
            for window in update.windows:
                await self._websocket.send_json({"type": "window", **window.to_dict()})
            for segment in update.segments:
                await self._websocket.send_json({"type": "segment", **segment.to_dict()})
            if update.windows and update.current is not None:
                await self._websocket.send_json({"type": "current", **update.current.to_dict()})

    async def _finish(self, *, damaged: bool) -> int:
        stopped = self._service.stopping.is_set()
        reason = "stopping" if stopped else "damaged" if damaged else END
        seconds = round(self._seconds, 3)
        self._service.metrics.audio.labels(ENDPOINT).inc(self._seconds)
        await self._websocket.send_json({"type": "done", "seconds": seconds, "reason": reason})
        return GOING_AWAY if stopped else NORMAL

    def _post(self, function: Any, *arguments: Any) -> None:
        """Call a function in the event loop, unless that has been closed."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(function, *arguments)


def _read_query(query: Mapping[str, str]) -> tuple[dict[str, Any], PcmFormat | None]:
    """The options of the stream and the format of raw samples.

    Raises:
        ValueError: If a parameter is unknown or unsuitable.
    """
    known = (*NUMBERS, "vad", "format", "sampling_rate", "channels")
    unknown = [name for name in query if name not in known]
    if unknown:
        raise ValueError(f"{', '.join(unknown)} is not a parameter; use {', '.join(known)}")
    options: dict[str, Any] = {name: _number(query, name) for name in NUMBERS if name in query}
    vad = query.get("vad", TimelineOptions.vad)
    options["vad"] = None if vad == "none" else vad
    TimelineOptions(**options)
    coding = query.get("format", CONTAINER)
    if coding not in FORMATS:
        raise ValueError(f"format is {coding!r}; use one of {', '.join(FORMATS)}")
    if coding == CONTAINER:
        return options, None
    if "sampling_rate" not in query:
        raise ValueError(f"format {coding!r} needs sampling_rate, the rate of the samples in Hz")
    rate, channels = (int(_number(query, name, 1)) for name in ("sampling_rate", "channels"))
    return options, PcmFormat(coding, rate, channels)


def _number(query: Mapping[str, str], name: str, default: float = 0.0) -> float:
    text = query.get(name, str(default))
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"{name} is {text!r}; it must be a number")
    return number
