"""A client of `emoser serve`: `python client.py http://127.0.0.1:8000 call.wav [TOKEN]`.

It needs the standard library only; `stream` needs `pip install websockets`.
"""

import http.client
import io
import json
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO
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
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}

    def predict(self, path: str, **query: Any) -> dict[str, Any]:
        """The prediction of a file; `query` are options such as channel="left"."""
        return self._post_file("/v1/predict", path, query)

    def timeline(self, path: str, **query: Any) -> dict[str, Any]:
        """The timeline of a file; `query` are options such as hop_seconds=0.5."""
        return self._post_file("/v1/timeline", path, query)

    def embed(self, path: str) -> dict[str, Any]:
        """The embedding of a file."""
        return self._post_file("/v1/embed", path, {})

    def turns(self, path: str, turns: str | None = None, **query: Any) -> dict[str, Any]:
        """The turns of a call, as by `emoser predict --turns`; by default, a speaker per channel.

        `query` are options such as adapt_speakers=True.
        """
        if turns is None:
            return self._post_file("/v1/turns", path, query)
        boundary = uuid.uuid4().hex
        fields = {"file": Path(path), "turns": Path(turns)}
        parts = [_write_field(boundary, field, file) for field, file in fields.items()]
        body = b"".join([*parts, f"--{boundary}--\r\n".encode()])
        kind = f"multipart/form-data; boundary={boundary}"
        return self._post("/v1/turns", query, lambda: io.BytesIO(body), kind)

    def stream(
        self, blocks: Iterable[bytes], *, sampling_rate: int, **query: Any
    ) -> Iterator[dict[str, Any]]:
        """Send blocks of 16-bit mono samples; yields messages of the service as they arrive."""
        from websockets.sync.client import connect

        query = {"format": "s16le", "sampling_rate": sampling_rate, **query}
        scheme = "wss" if self._address.scheme == "https" else "ws"
        address = f"{scheme}://{self._address.netloc}/v1/stream?{urlencode(query)}"
        with connect(address, additional_headers=self._headers) as socket:
            for block in blocks:
                socket.send(block)
                yield from map(json.loads, _arrived(socket))
            socket.send("end")
            yield from map(json.loads, socket)

    def _post_file(self, path: str, file: str, query: dict[str, Any]) -> dict[str, Any]:
        named = {"filename": Path(file).name, **query}
        return self._post(path, named, partial(open, file, "rb"), "application/octet-stream")

    def _post(
        self, path: str, query: dict[str, Any], open_body: Callable[[], BinaryIO], kind: str
    ) -> dict[str, Any]:
        """Send a body; waits as long as a busy service asks for, up to five times."""
        target = f"{path}?{urlencode(query)}"
        headers = {**self._headers, "Content-Type": kind}
        connect = {"https": http.client.HTTPSConnection}.get(
            self._address.scheme, http.client.HTTPConnection
        )
        remaining = MAX_TRIES
        while True:
            remaining -= 1
            connection = connect(self._address.netloc)
            with open_body() as body:
                connection.request("POST", target, body, headers)
                answer = connection.getresponse()
                content = json.loads(answer.read())
            connection.close()
            if answer.status == 200:
                return content
            wait = answer.headers.get("Retry-After")
            if wait is None or not remaining:
                raise ServiceError(answer.status, content["error"])
            time.sleep(float(wait))


def _write_field(boundary: str, field: str, file: Path) -> bytes:
    """A file as a field of a form."""
    name = file.name.replace('"', "%22")
    head = f'Content-Disposition: form-data; name="{field}"; filename="{name}"'
    return f"--{boundary}\r\n{head}\r\n\r\n".encode() + file.read_bytes() + b"\r\n"


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
