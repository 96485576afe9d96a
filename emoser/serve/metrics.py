"""Metrics of the service in the text format of Prometheus."""

import os
import time
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SHARED_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""The environment variable with the folder through which several worker processes share them."""
BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


class Metrics:
    """Counts requests, seconds of audio and live sessions; nothing about their content."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        own: Any = {"registry": self._registry}
        self.requests = Counter(
            "emoser_requests", "Answered requests.", ("endpoint", "status"), **own
        )
        self.seconds = Histogram(
            "emoser_request_seconds",
            "Time from the first byte of a request to its answer.",
            ("endpoint",),
            buckets=BUCKETS,
            **own,
        )
        self.audio = Counter(
            "emoser_audio_seconds", "Seconds of audio that were analysed.", ("endpoint",), **own
        )
        self.accepted = Gauge(
            "emoser_accepted_requests",
            "Requests that run or wait.",
            multiprocess_mode="livesum",
            **own,
        )
        self.sessions = Gauge(
            "emoser_live_sessions", "Live sessions.", multiprocess_mode="livesum", **own
        )

    def count(self, endpoint: str, status: int, start: float) -> None:
        """Count a request that was answered, received at `start` of `time.perf_counter`."""
        self.requests.labels(endpoint, str(status)).inc()
        self.seconds.labels(endpoint).observe(time.perf_counter() - start)

    def render(self) -> bytes:
        """All metrics as text, of all worker processes where these share a folder."""
        registry = self._registry
        if os.environ.get(SHARED_FOLDER):
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry)
