"""A server of `emoser.serve` in a thread of this process, on a real socket."""

import asyncio
import socket
import threading
import time
from contextlib import contextmanager

import httpx


@contextmanager
def running(classifier, **settings):
    """Yields an HTTP client whose `app` is the application and `portal` its event loop."""
    import uvicorn

    from emoser.serve import ServeOptions
    from emoser.serve.app import build_app
    from emoser.serve.server import uvicorn_settings

    options = ServeOptions(model="emoser-tiny", **settings)
    app = build_app(options, classifier)
    config = uvicorn.Config(app, **uvicorn_settings(options))
    server = uvicorn.Server(config)
    loops = []

    async def serve():
        loops.append(asyncio.get_running_loop())
        await server.serve(sockets=[listener])

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        thread = threading.Thread(target=lambda: asyncio.run(serve()))
        thread.start()
        while not server.started:
            time.sleep(0.01)
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        try:
            with httpx.Client(base_url=address, timeout=60) as client:
                client.app, client.portal = app, loops[0]
                yield client
        finally:
            server.should_exit = True
            thread.join(30)
