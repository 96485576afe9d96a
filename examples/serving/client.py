"""A client of `emoser serve`: `python client.py http://127.0.0.1:8000 call.wav [TOKEN]`.

`predict` and `timeline` need the standard library only; `stream` needs `pip install websockets`.
"""

import http.client
import json
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

MAX_TRIES = 5


class ServiceError(Exception):
    """What the service says about a request that it did not answer.

    Attributes:
        kind: The type of the error, such as "AudioError".
        status: The HTTP status.
    """

    def __init__(self, status: int, error: dict[str, str]) -> None:
        super().__init__(error["message"])
        self.kind, self.status = error["type"], status


class Client:
    """Sends recordings to a service.

    Args:
        address: Its address, such as http://127.0.0.1:8000.
        token: Its bearer token, if it needs one.
    """

    def __init__(self, address: str, *, token: str | None = None) -> None:
        self._address = urlsplit(address)
        self._headers = {"Content-Type": "application/octet-stream"}
        if token:
            self._headers["Authorization"] = f"Bearer {token}"

    def predict(self, path: str, **query: Any) -> dict[str, Any]:
        """The prediction of a file; `query` are options such as channel="left"."""
        return self._post("/v1/predict", Path(path), query)

    def timeline(self, path: str, **query: Any) -> dict[str, Any]:
        """The timeline of a file; `query` are options such as hop_seconds=0.5."""
        return self._post("/v1/timeline", Path(path), query)

    def embed(self, path: str) -> dict[str, Any]:
        """The embedding of a file."""
        return self._post("/v1/embed", Path(path), {})

    def stream(
        self, blocks: Iterable[bytes], *, sampling_rate: int, **query: Any
    ) -> Iterator[dict[str, Any]]:
        """Send blocks of 16-bit mono samples; yields messages of the service as they arrive."""
        from websockets.sync.client import connect

        query = {"format": "s16le", "sampling_rate": sampling_rate, **query}
        scheme = "wss" if self._address.scheme == "https" else "ws"
        address = f"{scheme}://{self._address.netloc}/v1/stream?{urlencode(query)}"
        headers = {key: self._headers[key] for key in ("Authorization",) if key in self._headers}
        with connect(address, additional_headers=headers) as socket:
            for block in blocks:
                socket.send(block)
                yield from map(json.loads, _arrived(socket))
            socket.send("end")
            yield from map(json.loads, socket)

    def _post(self, path: str, file: Path, query: dict[str, Any]) -> dict[str, Any]:
        """Send a file; waits as long as a busy service asks for, up to five times."""
        target = f"{path}?{urlencode({'filename': file.name, **query})}"
        kind = {"https": http.client.HTTPSConnection}.get(
            self._address.scheme, http.client.HTTPConnection
        )
        remaining = MAX_TRIES
        while True:
            remaining -= 1
            connection = kind(self._address.netloc)
            with file.open("rb") as body:
                connection.request("POST", target, body, self._headers)
                answer = connection.getresponse()
                content = json.loads(answer.read())
            connection.close()
            if answer.status == 200:
                return content
            wait = answer.headers.get("Retry-After")
            if wait is None or not remaining:
                raise ServiceError(answer.status, content["error"])
            time.sleep(float(wait))


def _arrived(socket: Any) -> Iterator[str]:
    """The messages that have arrived, without waiting for others."""
    while True:
        try:
            yield socket.recv(timeout=0)
        except TimeoutError:
            return


if __name__ == "__main__":
    address, path, *token = sys.argv[1:]
    print(json.dumps(Client(address, token=token[0] if token else None).predict(path), indent=2))
