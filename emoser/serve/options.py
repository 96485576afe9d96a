"""Settings of the service, from arguments or from environment variables."""

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, get_args, get_type_hints

from emoser.checkpoints.resolve import DEFAULT_MODEL

PREFIX = "EMOSER_SERVE_"
MEGABYTE = 1_000_000
LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class ServeOptions:
    """Settings of the service.

    Attributes:
        model: A bundled name, a folder, a name that `emoser models` lists, or a Hub id.
        labels: A label set to map to, as for `EmotionClassifier.from_pretrained`, or None.
        device: As for `EmotionClassifier.from_pretrained`, like the next two.
        dtype: Precision of the model.
        backend: Engine of the model.
        streams: How many recordings run at the same time on a CPU; 0 for one per core.
        max_requests: Requests that are accepted at the same time, running or waiting; others get
            429.
        max_sessions: Live sessions at the same time; others are closed with 1013.
        max_megabytes: Largest upload.
        max_seconds: Longest recording or live session, in seconds of audio.
        timeout_seconds: Longest time from the acceptance of a request to its answer, and longest
            silence of the client in a live session.
        token_file: A file with one bearer token per line, or None to serve everybody.
        allowed_hosts: Names under which clients reach the service, beside localhost and any
            address in numbers; "*" for any name.
        allowed_origins: Other sites whose pages may use the service from a browser.

    Raises:
        ValueError: If a number is out of range.

    Example:
        >>> ServeOptions.from_environment({"EMOSER_SERVE_MAX_SECONDS": "60"}).max_seconds
        60.0
        >>> ServeOptions(allowed_hosts=("a", "b")).to_environment()
        {'EMOSER_SERVE_ALLOWED_HOSTS': 'a,b'}
    """

    model: str = DEFAULT_MODEL
    labels: str | None = None
    device: str = "auto"
    dtype: str = "auto"
    backend: str = "auto"
    streams: int = 0
    max_requests: int = 128
    max_sessions: int = 32
    max_megabytes: float = 100.0
    max_seconds: float = 3600.0
    timeout_seconds: float = 300.0
    token_file: str | None = None
    allowed_hosts: tuple[str, ...] = ()
    allowed_origins: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.model:
            raise ValueError(f"model is empty; name one, such as {DEFAULT_MODEL}")
        if self.streams < 0:
            raise ValueError(f"streams is {self.streams}; it must be 0 (one per core) or more")
        for name in ("max_requests", "max_megabytes", "max_seconds", "timeout_seconds"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"{name} is {getattr(self, name)}; it must be above 0")
        if self.max_sessions < 0:
            raise ValueError(f"max_sessions is {self.max_sessions}; it must be 0 or more")

    @property
    def max_bytes(self) -> int:
        """Largest upload in bytes."""
        return round(self.max_megabytes * MEGABYTE)

    @property
    def num_streams(self) -> int:
        """How many recordings run at the same time on a CPU."""
        return self.streams or count_cores()

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "ServeOptions":
        """The settings of variables such as EMOSER_SERVE_MAX_SECONDS; lists have commas.

        Raises:
            ValueError: If a variable has no setting, or an unsuitable value.
        """
        types = get_type_hints(cls)
        values: dict[str, Any] = {}
        for variable, text in environment.items():
            name = variable.removeprefix(PREFIX).lower()
            if not variable.startswith(PREFIX) or text == "":
                continue
            if name not in types:
                known = ", ".join(PREFIX + field.name.upper() for field in fields(cls))
                raise ValueError(f"{variable} is not a setting of the service; use {known}")
            values[name] = _parse(variable, text, types[name])
        return cls(**values)

    def to_environment(self) -> dict[str, str]:
        """The variables that `from_environment` reads, for the settings that are not defaults."""
        default = asdict(ServeOptions())
        return {
            PREFIX + name.upper(): ",".join(value) if isinstance(value, tuple) else str(value)
            for name, value in asdict(self).items()
            if value != default[name]
        }


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address.

    Example:
        >>> is_loopback("127.0.0.1"), is_loopback("0.0.0.0")
        (True, False)
    """
    return host in LOOPBACK


def count_cores() -> int:
    """The cores that this process may use, or fewer if OMP_NUM_THREADS says so."""
    allowed = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    stated = os.environ.get("OMP_NUM_THREADS", "")
    return min(allowed, int(stated)) if stated.isdigit() and int(stated) > 0 else allowed


def _parse(variable: str, text: str, kind: Any) -> Any:
    if kind in (int, float):
        try:
            return kind(text)
        except ValueError as error:
            raise ValueError(f"{variable} is {text!r}; it must be a number") from error
    if str in get_args(kind) and type(None) not in get_args(kind):
        return tuple(item.strip() for item in text.split(",") if item.strip())
    return text
