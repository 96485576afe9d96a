"""Stop a service at SIGTERM and Ctrl-C under any server: `emoser serve` or a worker of uvicorn.

uvicorn closes live sessions before its application learns of the stop, and goes on serving a
connection that it accepted in the same moment. So the service listens to the signals itself.
"""

import asyncio
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from emoser.serve.service import Service

SIGNALS = (signal.SIGTERM, signal.SIGINT)
SESSION_END_SECONDS = 10.0  # for live sessions to send what they found


@contextmanager
def stopped_by_signals(service: Service) -> Iterator[None]:
    """Within it, the first signal stops the service, and the server once live sessions have ended.

    A second signal goes straight to the server. Nothing changes where the server has no handler of
    its own, or runs in another than the main thread.
    """
    loop = asyncio.get_running_loop()
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    servers = {number: handler for number, handler in handlers.items() if callable(handler)}
    if threading.current_thread() is not threading.main_thread():
        servers = {}
    tasks = []

    def receive(number: int, frame: FrameType | None) -> None:
        if service.jobs.stopping:
            servers[signal.Signals(number)](number, frame)
        else:
            service.jobs.stopping = True
            loop.call_soon_threadsafe(lambda: tasks.append(loop.create_task(stop(number))))

    async def stop(number: int) -> None:
        service.stop()
        deadline = loop.time() + SESSION_END_SECONDS
        while service.num_sessions and loop.time() < deadline:
            await asyncio.sleep(0.05)
        servers[signal.Signals(number)](number, None)

    for number in servers:
        signal.signal(number, receive)
    try:
        yield
    finally:
        for number, handler in servers.items():
            if signal.getsignal(number) == receive:
                signal.signal(number, handler)
