"""Load test of `emoser serve` on loopback, beside plain transformers and FastAPI in the same run.

    python examples/benchmarks/serving.py --models emoser-small base --dtype auto bfloat16
    python examples/benchmarks/serving.py --models emoser-small --soak 30

Every number of clients is measured in two ways. *Closed*: each client sends its next request when
it has the answer, which gives the most requests per second. *Open*: requests arrive at random
(Poisson) times at a fixed rate, 0.7 times what the peer reaches, whether or not the server is ready
for them; a request's time begins when it should have been sent, so that a slow server cannot slow
down its own load. Servers are measured in turns, and the CPU time of each is counted, which
depends less on what else the machine does.
"""

import argparse
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import soundfile
from serving_load import Load, run_closed, run_open
from shapes import write_int8, write_model

from emoser.audio import SAMPLING_RATE
from emoser.bench.machine import describe_machine, make_clip
from emoser.text import markdown_table

PEER = "transformers + FastAPI"
CLIP_SECONDS = 4.0
SHARE = 0.7
TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass
class Server:
    """A server in a process of its own."""

    name: str
    process: subprocess.Popen
    port: int
    closed: dict[int, list[Load]] = field(default_factory=dict)  # by number of clients
    open: dict[int, list[Load]] = field(default_factory=dict)

    def cpu_seconds(self) -> float:
        """CPU time that the process has used."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def memory_mib(self) -> float:
        """Resident memory of the process."""
        pages = Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]
        return int(pages) * PAGE / 2**20


@contextmanager
def started(name: str, words: list[str], port: int) -> Iterator[Server]:
    """Start a server and wait until it is ready."""
    process = subprocess.Popen([sys.executable, *words], stdout=subprocess.DEVNULL)
    try:
        for _ in range(1200):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/ready", timeout=5).close()
                break
            except OSError:
                if process.poll() is not None:
                    raise SystemExit(f"{name} ended with {process.returncode}") from None
                time.sleep(0.25)
        yield Server(name, process, port)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def emoser_words(model: str, port: int, dtype: str, options: argparse.Namespace) -> list[str]:
    words = ["-m", "emoser", "serve", "--model", model, "--port", str(port), "--dtype", dtype]
    return [*words, "--backend", options.backend, "--workers", str(options.workers)]


def form(clip: bytes) -> tuple[bytes, str]:
    """The body of an upload by a form, and its content type."""
    head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
    return head + clip + b"\r\n--x--\r\n", "multipart/form-data; boundary=x"


def measure(servers: list[Server], request: tuple[bytes, str], options: argparse.Namespace) -> None:
    """Fill in the loads of all servers, in turns."""
    for server in servers:
        run_closed(server, request, clients=2, seconds=2.0)  # warm up
    for clients in options.clients:
        for _ in range(options.rounds):
            for server in servers:
                load = run_closed(server, request, clients=clients, seconds=options.seconds)
                server.closed.setdefault(clients, []).append(load)
                report(server, clients, "closed", load)
        rate = SHARE * median(load.rate for load in servers[0].closed[clients])
        for server in servers:
            times = arrivals(rate, options.seconds)
            load = run_open(server, request, clients=clients, times=times)
            server.open.setdefault(clients, []).append(load)
            report(server, clients, f"open at {rate:.1f}/s", load)


def arrivals(rate: float, seconds: float) -> list[float]:
    """Random times of requests, the same for every server."""
    generator, times, now = random.Random(0), list[float](), 0.0
    while (now := now + generator.expovariate(rate)) < seconds:
        times.append(now)
    return times or [0.0]


def report(server: Server, clients: int, kind: str, load: Load) -> None:
    print(
        f"{server.name:<34} {clients:>3} clients, {kind:<15} {load.rate:7.1f}/s  "
        f"p50 {1e3 * load.p(50):6.0f}  p95 {1e3 * load.p(95):6.0f}  p99 {1e3 * load.p(99):6.0f} ms"
        f"  cpu {1e3 * load.cpu_per_request:5.1f} ms  failed {load.num_failed}",
        file=sys.stderr,
        flush=True,
    )


def table(servers: list[Server], model: str) -> str:
    rows, peer = [], servers[0]
    for clients in peer.closed:
        for server in servers:
            rate = median(load.rate for load in server.closed[clients])
            ratio = rate / median(load.rate for load in peer.closed[clients])
            cpu = median(load.cpu_per_request for load in server.closed[clients])
            loads = server.closed[clients][-1], server.open[clients][-1]
            times = ["/".join(f"{1e3 * load.p(q):.0f}" for q in (50, 95, 99)) for load in loads]
            rows.append(
                [model, server.name, str(clients), f"{rate:.1f} ({ratio:.2f})", *times,
                 f"{1e3 * cpu:.0f}"]
            )  # fmt: skip
    head = ["model", "server", "clients", "requests/s (ratio)", "closed p50/p95/p99 ms",
            "open p50/p95/p99 ms", "CPU ms/request"]  # fmt: skip
    return markdown_table([head, *rows])


def soak(server: Server, request: tuple[bytes, str], minutes: float, clients: int) -> str:
    """Load for so many minutes: lost requests, and the slope of memory in the second half."""
    run_closed(server, request, clients=clients, seconds=10.0)
    points, num_requests, num_failed = list[tuple[float, float]](), 0, 0
    start = time.monotonic()
    while (now := time.monotonic() - start) < 60 * minutes:
        points.append((now, server.memory_mib()))
        load = run_closed(server, request, clients=clients, seconds=5.0)
        num_requests += len(load.seconds)
        num_failed += load.num_failed
    later = points[len(points) // 2 :]
    slope = fit_slope(later) * 3600
    return (
        f"{server.name}: {num_requests} requests in {minutes:g} minutes with {clients} clients, "
        f"{num_failed} lost, {points[0][1]:.0f} MiB at the start, {later[0][1]:.0f} at half-time, "
        f"{points[-1][1]:.0f} at the end; slope of the second half {slope:+.1f} MiB an hour"
    )


def fit_slope(points: list[tuple[float, float]]) -> float:
    """The slope of the line through points by least squares."""
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / spread if spread else 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", nargs="+", default=["emoser-small", "base"])
    parser.add_argument("--dtype", nargs="+", default=["auto"], help="auto, bfloat16, int8 (base)")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--clients", nargs="+", type=int, default=[1, 8, 64])
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--soak", type=float, help="minutes; measures emoser alone")
    options = parser.parse_args()
    print(json.dumps(describe_machine()), file=sys.stderr)
    for name in options.models:
        print(run_model(name, options), flush=True)


def run_model(name: str, options: argparse.Namespace) -> str:
    place = Path(tempfile.gettempdir()) / f"emoser-serving-{name}"
    model = str(write_model(name, place)) if name in ("base", "large") else name
    clip = place.with_suffix(".wav")
    soundfile.write(clip, make_clip(CLIP_SECONDS), SAMPLING_RATE)
    request = form(clip.read_bytes())
    servers: list[Server] = []
    with ExitStack() as stack:
        enter = stack.enter_context
        if not options.soak:
            port = free_port()
            words = [str(Path(__file__).with_name("serving_peer.py")), model, str(port)]
            servers.append(enter(started(PEER, words, port)))
        for dtype in options.dtype:
            port = free_port()
            served = str(write_int8(Path(model), place / "int8")) if dtype == "int8" else model
            words = emoser_words(served, port, "auto" if dtype == "int8" else dtype, options)
            servers.append(enter(started(f"emoser serve, {dtype}", words, port)))
        if options.soak:
            return "\n".join(soak(item, request, options.soak, 8) for item in servers)
        measure(servers, request, options)
        return table(servers, name)


if __name__ == "__main__":
    main()
