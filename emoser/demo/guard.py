"""Refuses requests under other names or from pages of other sites, and messages that are too long.

A foreign page can make the name of its own site stand for this machine; a browser then takes the
demo for a part of that site and lets it read the results.
"""

from typing import TYPE_CHECKING

from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse
from starlette.websockets import WebSocket

from emoser.serve.access import Access, read_headers
from emoser.serve.errors import HostError
from emoser.serve.uploads import limit_body

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

MAX_MESSAGE_BYTES = 8 * 2**20  # a live message holds 10 s of audio at 192 kHz in base64
UPLOAD = "/upload"  # the end of the only path with larger messages, which Gradio limits
REFUSED = (
    "the demo does not accept requests under this name or from pages of other sites; if the name "
    "is its own, start it with --allow-host NAME"
)
TOO_LARGE = f"the message is longer than {MAX_MESSAGE_BYTES:,} bytes; reload the page"


class Guard:
    """Checks the host, the origin and the length of every request, as ASGI middleware.

    Args:
        app: The application.
        access: The names and sites that are allowed.
    """

    def __init__(self, app: "ASGIApp", access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """See ASGI."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        headers = read_headers(scope)
        try:
            self._access.check_host(headers.get("host", ""), headers.get("origin"))
        except HostError:
            refused = PlainTextResponse(REFUSED, 403)
            if scope["type"] == "websocket":
                await WebSocket(scope, receive, send).send_denial_response(refused)
            else:
                await refused(scope, receive, send)
            return
        if scope["type"] == "websocket" or scope["path"].endswith(UPLOAD):
            await self._app(scope, receive, send)
            return
        length = headers.get("content-length", "0")
        if not length.isdigit() or int(length) > MAX_MESSAGE_BYTES:
            await PlainTextResponse(TOO_LARGE, 413)(scope, receive, send)
            return
        limited = limit_body(receive, MAX_MESSAGE_BYTES, HTTPException(413, TOO_LARGE))
        await self._app(scope, limited, send)
