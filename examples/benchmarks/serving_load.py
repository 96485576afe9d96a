"""Load for `serving.py`: HTTP requests over kept connections, with as little Python as possible."""

import asyncio
import time
from dataclasses import dataclass, field
from statistics import quantiles
from typing import Any

PATH = "/v1/predict"
FAILED = (OSError, asyncio.IncompleteReadError, ValueError, IndexError)


@dataclass
class Load:
    """The requests of one measurement.

    Attributes:
        seconds: Time of each answered request.
        duration: From the first request to the last answer.
        num_failed: Requests without an answer, or with a status other than 200.
        cpu_seconds: CPU time of the server.
    """

    seconds: list[float] = field(default_factory=list)
    duration: float = 0.0
    num_failed: int = 0
    cpu_seconds: float = 0.0

    @property
    def rate(self) -> float:
        """Answered requests per second."""
        return len(self.seconds) / self.duration

    @property
    def cpu_per_request(self) -> float:
        """CPU time of the server in seconds."""
        return self.cpu_seconds / max(1, len(self.seconds))

    def p(self, percent: int) -> float:
        """A percentile of the times in seconds."""
        if len(self.seconds) < 2:
            return self.seconds[0] if self.seconds else float("nan")
        return quantiles(self.seconds, n=100, method="inclusive")[percent - 1]


def run_closed(server: Any, request: tuple[bytes, str], *, clients: int, seconds: float) -> Load:
    """Clients that send their next request when they have the answer."""
    load = Load()

    async def work(stop: float) -> None:
        connection = Connection(server.port, request)
        while time.perf_counter() < stop:
            await _timed(connection, load, time.perf_counter())
        connection.close()

    async def run() -> None:
        stop = time.perf_counter() + seconds
        await asyncio.gather(*(work(stop) for _ in range(clients)))

    return _measure(server, load, run)


def run_open(server: Any, request: tuple[bytes, str], *, clients: int, times: list[float]) -> Load:
    """Requests at given times, each over the next free one of so many connections."""
    load = Load()

    async def run() -> None:
        start, free = time.perf_counter(), asyncio.Queue[Connection]()
        for _ in range(clients):
            free.put_nowait(Connection(server.port, request))

        async def send(due: float) -> None:
            connection = await free.get()
            await _timed(connection, load, due)
            free.put_nowait(connection)

        async with asyncio.TaskGroup() as group:
            for moment in times:
                await asyncio.sleep(max(0.0, start + moment - time.perf_counter()))
                group.create_task(send(start + moment))
        while not free.empty():
            free.get_nowait().close()

    return _measure(server, load, run)


def _measure(server: Any, load: Load, run: Any) -> Load:
    cpu, start = server.cpu_seconds(), time.perf_counter()
    asyncio.run(run())
    load.duration = time.perf_counter() - start
    load.cpu_seconds = server.cpu_seconds() - cpu
    return load


async def _timed(connection: "Connection", load: Load, start: float) -> None:
    try:
        status = await connection.send()
    except FAILED:
        status = 0
        connection.close()
    if status == 200:
        load.seconds.append(time.perf_counter() - start)
    else:
        load.num_failed += 1


class Connection:
    """A kept connection that sends one request again and again."""

    def __init__(self, port: int, request: tuple[bytes, str]) -> None:
        body, kind = request
        head = (
            f"POST {PATH} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: {kind}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        self._port = port
        self._data = head.encode() + body
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def send(self) -> int:
        """Send the request and read the answer; returns its status."""
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        writer.write(self._data)
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        length = int(head.split("content-length:")[1].split("\r\n")[0])
        await reader.readexactly(length)
        if "connection: close" in head:
            self.close()
        return int(head.split(" ")[1])

    def close(self) -> None:
        """Close the connection; the next request opens another one."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None
