"""Run the service with uvicorn until a signal stops it."""

import gc
import math
import multiprocessing
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import uvicorn

from emoser.checkpoints.atomic import scratch_folder
from emoser.errors import DeviceError
from emoser.serve.app import build_app
from emoser.serve.connections import LimitedProtocol
from emoser.serve.metrics import SHARED_FOLDER
from emoser.serve.model import load_classifier
from emoser.serve.options import PREFIX, ServeOptions
from emoser.serve.service import Service

if TYPE_CHECKING:
    from fastapi import FastAPI

FACTORY = "emoser.serve.server:create_worker_app"
BACKLOG = 2048
GC_THRESHOLDS = (2_000, 10, 10)  # about Python's own
KEEP_ALIVE_SECONDS = 65  # longer than that of usual proxies, which then close first
MESSAGE_BYTES = 2**20  # of a WebSocket

Announce = Callable[[str], None]


def run_server(
    options: ServeOptions,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    workers: int = 1,
    announce: Announce | None = None,
) -> None:
    """Run the service until SIGTERM or Ctrl-C.

    It then accepts nothing new, ends live sessions with what they found, and finishes the accepted
    requests; those that last longer than `options.timeout_seconds` are answered with 503.

    Args:
        options: Settings of the service.
        host: Address to listen on; only this machine can reach the default.
        port: Port to listen on; 0 for a free one.
        workers: Number of processes, each with a model of its own.
        announce: Called with the address once requests are accepted.

    Raises:
        CheckpointError: If the model cannot be loaded.
        DeviceError: If the address or the port is not available.
        OSError: If the token file cannot be read.
        ValueError: If a setting is out of range.
    """
    if workers < 1:
        raise ValueError(f"workers is {workers}; it must be at least 1")
    with _listen(host, port) as listener, _quiet_signals():
        address = _address_of(host, listener)
        classifier = load_classifier(options)  # with several workers only to report its errors
        app = build_app(options, classifier)
        _collect_regularly()
        if workers == 1:
            server = _Server(uvicorn.Config(app, **uvicorn_settings(options)), app.state.service)
            server.announce = lambda: announce(address) if announce is not None else None
            server.run(sockets=[listener])
            return
        del app, classifier
        with _shared_settings(options):
            if announce is not None:
                announce(address)
            number = listener.fileno()
            uvicorn.run(
                FACTORY, factory=True, workers=workers, fd=number, **uvicorn_settings(options)
            )


def create_worker_app() -> "FastAPI":
    """The application of one of several workers, which stops when the process that began it ends.

    Otherwise the workers of a killed service would keep its port.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:

        def stop_after_parent() -> None:
            parent.join()
            os.kill(os.getpid(), signal.SIGTERM)

        threading.Thread(target=stop_after_parent, daemon=True).start()
    options = ServeOptions.from_environment()
    return build_app(options, load_classifier(options))


class _Server(uvicorn.Server):
    """Says when it is ready, and reports requests that were cut off."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self.announce: Callable[[], None] = lambda: None
        self._service = service

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self.announce()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await super().shutdown(sockets)
        if cut := self._service.jobs.num_accepted:
            print(f"emoser: {cut} requests were not finished", file=sys.stderr)  # noqa: T201


def uvicorn_settings(options: ServeOptions) -> dict[str, Any]:
    """The settings of the server."""
    return {
        "log_level": "warning",
        "access_log": False,
        "server_header": False,
        "timeout_keep_alive": KEEP_ALIVE_SECONDS,
        "timeout_graceful_shutdown": math.ceil(options.timeout_seconds),
        "ws_max_size": MESSAGE_BYTES,
        "ws_per_message_deflate": False,
        "backlog": BACKLOG,
        "http": LimitedProtocol,
    }


def _collect_regularly() -> None:
    """Collect the garbage of requests, but never again what the start has left for good.

    The command line has made collections rare, which suits a process of a few seconds.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


@contextmanager
def _listen(host: str, port: int) -> Iterator[socket.socket]:
    """Open the port before the model is loaded, which can take minutes."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with ExitStack() as stack:
        try:
            # asyncio sends at once (TCP_NODELAY) only where the protocol is named: without it, the
            # body of an answer waits 40 ms for the client to acknowledge the headers.
            named = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
            listener = stack.enter_context(named)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, port))
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise DeviceError(
                f"port {port} of {host} cannot be opened ({reason}); choose another port or host"
            ) from error
        listener.set_inheritable(True)
        yield listener


def _address_of(host: str, listener: socket.socket) -> str:
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{listener.getsockname()[1]}"


@contextmanager
def _quiet_signals() -> Iterator[None]:
    """Let a graceful stop end normally: uvicorn raises the signal again when it has stopped."""
    former = {
        number: signal.signal(number, lambda *_: None) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


@contextmanager
def _shared_settings(options: ServeOptions) -> Iterator[None]:
    """Pass settings to worker processes, and a folder in which they share their metrics."""
    former = dict(os.environ)
    with scratch_folder() as folder:
        for name in [name for name in os.environ if name.startswith(PREFIX)]:
            del os.environ[name]
        os.environ.update(options.to_environment())
        os.environ.setdefault(SHARED_FOLDER, str(folder))
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(former)
