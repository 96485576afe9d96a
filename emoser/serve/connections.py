"""Connections of clients that send endless headers, or none: uvicorn keeps them for ever."""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEADER_SECONDS = 30.0
HEADER_BYTES = 65_536


class LimitedProtocol(HttpToolsProtocol):
    """Ends a connection whose next request has not begun its body in time, or has large headers."""

    _timer: asyncio.TimerHandle | None = None
    _num_bytes = 0

    def connection_made(self, transport: Any) -> None:
        """See `asyncio.Protocol`."""
        super().connection_made(transport)
        self._await_headers()

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        self._num_bytes += len(data)
        super().data_received(data)
        if self._timer is not None and self._num_bytes > HEADER_BYTES:
            self.send_400_response(f"The headers are longer than {HEADER_BYTES:,} bytes.")

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._stop_waiting()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """See `httptools.HttpRequestParser`."""
        super().on_message_begin()
        self._await_headers()

    def on_headers_complete(self) -> None:
        """See `httptools.HttpRequestParser`."""
        self._stop_waiting()
        super().on_headers_complete()

    def _await_headers(self) -> None:
        self._stop_waiting()
        self._num_bytes = 0
        self._timer = self.loop.call_later(HEADER_SECONDS, self.transport.close)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
