"""Who may use the service: hosts, origins of pages, and bearer tokens."""

import hashlib
import hmac
import ipaddress
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from emoser.serve.errors import HostError, TokenError

if TYPE_CHECKING:
    from starlette.types import Scope

ANY = "*"
LOCAL = "localhost"
OPEN_PATHS = ("/", "/page.js", "/page.css", "/favicon.ico", "/health", "/ready", "/openapi.json")
"""Paths that need no token: probes, and pages without data."""
SUBPROTOCOL = "emoser"
SUBPROTOCOL_TOKEN = "bearer."
"""A page cannot set headers of a WebSocket; it sends its token as a protocol with this prefix."""


HOST = re.compile(r"(\[(?P<address>[\da-fA-F:.]+)\]|(?P<name>[\w.-]+))(:\d*)?", re.ASCII)


class Access:
    """Checks requests by their headers.

    Args:
        hosts: Names that the service may be called by, beside localhost and addresses in numbers.
        origins: Other sites whose pages may use it.
        token_file: A file with one token per line, or None for no tokens.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If it holds no token.
    """

    def __init__(
        self,
        hosts: Iterable[str] = (),
        origins: Iterable[str] = (),
        token_file: str | None = None,
    ) -> None:
        self.hosts = frozenset(host.lower() for host in hosts)
        self.origins = frozenset(origins)
        self._digests = None if token_file is None else _read_tokens(Path(token_file))

    def check_host(self, host: str, origin: str | None = None) -> None:
        """Refuse a name or an origin that is not allowed.

        A page of another site can make the name of its own site stand for this machine, but never
        an address in numbers.

        Args:
            host: The header Host.
            origin: The header Origin; None without one.

        Raises:
            HostError: If either is not allowed.
        """
        name = host_name(host)
        if not (ANY in self.hosts or name in self.hosts or name == LOCAL or _is_address(name)):
            raise HostError(
                f"this service is not known as {name or 'a host without a name'!r}; start it with "
                f"--allow-host {name or 'NAME'}"
            )
        if origin is None or origin in self.origins or ANY in self.origins:
            return
        if urlsplit(origin).netloc.lower() != host.strip().lower():
            raise HostError(
                f"pages of {origin} may not use this service; start it with --allow-origin {origin}"
            )

    def check_token(self, authorization: str | None, subprotocols: Sequence[str] = ()) -> None:
        """Refuse a request without a valid token, in the same time for every wrong one.

        Raises:
            TokenError: If the token is missing or wrong.
        """
        if self._digests is None:
            return
        scheme, _, token = (authorization or "").partition(" ")
        found = [token.strip()] if scheme.lower() == "bearer" else []
        found += [
            item.removeprefix(SUBPROTOCOL_TOKEN)
            for item in subprotocols
            if item.startswith(SUBPROTOCOL_TOKEN)
        ]
        if not found:
            raise TokenError("the token is missing; send the header Authorization: Bearer TOKEN")
        digest = _digest(found[0].encode("latin-1", "replace"))  # the bytes of the header
        if not any([hmac.compare_digest(digest, known) for known in self._digests]):
            raise TokenError("the token is wrong; ask whoever runs this service for one")


def read_headers(scope: "Scope") -> dict[str, str]:
    """The headers of a request; the values of one that is repeated are joined by commas."""
    found: dict[str, str] = {}
    for key, item in scope["headers"]:
        name, value = key.decode("latin-1"), item.decode("latin-1")
        found[name] = f"{found[name]}, {value}" if name in found else value
    return found


def host_name(header: str) -> str:
    """The name in a Host header, in lower case and without the port; "" if it is malformed.

    Example:
        >>> host_name("Example.org:8000"), host_name("[::1]:80"), host_name("example.org/x")
        ('example.org', '::1', '')
    """
    found = HOST.fullmatch(header.strip())
    return "" if found is None else (found["address"] or found["name"]).lower()


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _read_tokens(path: Path) -> tuple[bytes, ...]:
    lines = path.read_bytes().splitlines()
    tokens = [line.strip() for line in lines if line.strip() and not line.startswith(b"#")]
    if not tokens:
        raise ValueError(f"{path} holds no token; write one per line")
    return tuple(map(_digest, tokens))


def _digest(token: bytes) -> bytes:
    """Equally long for every token, so that a comparison does not reveal the length."""
    return hashlib.sha256(token).digest()
