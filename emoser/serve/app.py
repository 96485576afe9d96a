"""The ASGI application: endpoints behind checks of host, origin and token, with JSON errors."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request, Security, WebSocket
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.security import HTTPBearer
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect

from emoser._version import __version__
from emoser.serve.access import OPEN_PATHS, read_headers
from emoser.serve.errors import HANDLED, RequestError, StoppingError, describe, status_of
from emoser.serve.options import ServeOptions
from emoser.serve.routes import build_router
from emoser.serve.service import Service
from emoser.serve.signals import stopped_by_signals
from emoser.serve.stream import handle_stream
from emoser.serve.uploads import DRAIN_BYTES, Body

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from emoser.classifier import EmotionClassifier

LOGGER = logging.getLogger(__name__)
DRAIN_SECONDS = 5.0
CLIENT_GONE = 499  # in metrics, as elsewhere: the client left during its request
BODY = "emoser.body"  # in the scope of a request
OTHER = "other"  # the endpoint of unknown paths in metrics
TITLE = "emoser"
DESCRIPTION = (
    "Speech emotion recognition. Recordings are sent as the body of a request or as the field "
    "`file` of a form; live audio through the WebSocket /v1/stream. Nothing is stored."
)


def build_app(options: ServeOptions, classifier: "EmotionClassifier") -> FastAPI:
    """The application for a loaded model; its `state.service` is the `Service`.

    Raises:
        OSError: If the token file cannot be read.
        ValueError: If the token file holds no token.
    """
    service = Service(options, classifier)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        with stopped_by_signals(service):
            yield
        service.stop()
        service.jobs.close()

    app = FastAPI(
        title=TITLE,
        version=__version__,
        description=DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.service = service
    bearer = [] if options.token_file is None else [Security(HTTPBearer(auto_error=False))]
    app.include_router(build_router(service), dependencies=bearer)

    @app.websocket("/v1/stream")
    async def stream(websocket: WebSocket) -> None:
        await handle_stream(websocket, service)

    for kind in (RequestError, HTTPException, RequestValidationError, *HANDLED):
        app.add_exception_handler(kind, _explain)
    app.add_middleware(Gate, service=service)
    if options.allowed_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=options.allowed_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type"],
        )
    return app


class Gate:
    """Checks every request before it is read, counts it, and answers it when it is cut off."""

    def __init__(self, app: "ASGIApp", service: Service) -> None:
        self._app = app
        self._service = service

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """See ASGI."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        error = self._find_fault(scope)
        if scope["type"] == "websocket":
            if error is None:
                await self._app(scope, receive, send)
            else:
                await WebSocket(scope, receive, send).send_denial_response(_respond(error))
            return
        await self._answer(scope, receive, send, error)

    async def _answer(
        self, scope: "Scope", receive: "Receive", send: "Send", error: RequestError | None
    ) -> None:
        start, status, endpoint = time.perf_counter(), 0, scope["path"]

        async def counted(message: "Message") -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        body = scope[BODY] = Body(receive)
        try:
            if error is not None:
                response = await _explain(Request(scope), error)
                await response(scope, body.receive, counted)
            else:
                await self._app(scope, body.receive, counted)
        except asyncio.CancelledError:  # the time for a graceful stop is over
            if not status:
                stopped = StoppingError("the service stopped before the answer; send it again")
                await _respond(stopped)(scope, receive, counted)
            raise
        except ClientDisconnect:
            status = status or CLIENT_GONE
        except Exception as bug:
            LOGGER.exception("a request to %s failed", endpoint)
            if not status:
                await _respond(bug)(scope, receive, counted)
        finally:
            known = getattr(scope.get("route"), "path", OTHER)
            self._service.metrics.count(known if endpoint == known else OTHER, status or 500, start)

    def _find_fault(self, scope: "Scope") -> RequestError | None:
        headers = read_headers(scope)
        try:
            self._service.access.check_host(headers.get("host", ""), headers.get("origin"))
            if scope["path"] not in OPEN_PATHS:
                self._service.access.check_token(
                    headers.get("authorization"), scope.get("subprotocols", ())
                )
        except RequestError as error:
            return error
        return None


async def _explain(request: Request, error: Exception) -> JSONResponse:
    """The answer to an error, once its client can be expected to read it."""
    if isinstance(error, RequestError):
        await _drain(request)
    return _respond(error)


async def _drain(request: Request) -> None:
    """Read what a client is still sending, unless it waits for a permission to send."""
    length = request.headers.get("content-length", "0")
    is_small = length.isdigit() and int(length) <= DRAIN_BYTES
    if is_small and "expect" not in request.headers and request.method == "POST":
        with suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_SECONDS):
                await request.scope[BODY].drain()


def _respond(error: Exception) -> JSONResponse:
    if isinstance(error, HTTPException):
        return JSONResponse(_describe_http(error), error.status_code, error.headers)
    if isinstance(error, RequestValidationError):
        return JSONResponse({"error": {"type": "ValueError", "message": _join(error)}}, 400)
    headers = error.headers if isinstance(error, RequestError) else None
    return JSONResponse(describe(error), status_of(error), headers)


def _describe_http(error: HTTPException) -> dict[str, Any]:
    messages = {
        404: "there is no such address; / lists the endpoints",
        405: "this address does not take this method; / lists the endpoints",
    }
    message = messages.get(error.status_code, str(error.detail))
    return {"error": {"type": "RequestError", "message": message}}


def _join(error: RequestValidationError) -> str:
    """All faults of the query in one sentence."""
    faults = [f"{item['loc'][-1]} is {item['input']!r} ({item['msg']})" for item in error.errors()]
    return "; ".join(faults)
