"""Errors of requests, and the HTTP status and JSON body of every error."""

from typing import Any

from emoser.errors import AudioError, DependencyError, DeviceError, TurnsError
from emoser.json_text import format_json

STATUS: tuple[tuple[type[Exception], int], ...] = (
    (AudioError, 422),
    (TurnsError, 422),
    (DependencyError, 501),
    (DeviceError, 503),
    (ValueError, 400),
)
HANDLED = (AudioError, DependencyError, DeviceError, ValueError)
"""Raised by the library with a sentence for users; anything else is a bug."""

INTERNAL = "the service failed at this request; its log has the reason"


class RequestError(Exception):
    """A request that the service refuses or cannot finish.

    Attributes:
        status: The HTTP status.
        headers: Further headers of the answer.
    """

    status = 400

    def __init__(self, message: str, *, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.headers = headers or {}


class BusyError(RequestError):
    """As many requests or sessions as the service accepts are running."""

    status = 429

    def __init__(self, message: str, *, retry_after: int) -> None:
        super().__init__(message, headers={"Retry-After": str(retry_after)})


class StoppingError(RequestError):
    """The service is stopping."""

    status = 503

    def __init__(self, message: str) -> None:
        super().__init__(message, headers={"Retry-After": "1", "Connection": "close"})


class TooLargeError(RequestError):
    """An upload beyond the limit."""

    status = 413


class UploadError(RequestError):
    """A body without a recording, or with several."""

    status = 400


class SlowUploadError(RequestError):
    """An upload that took too long."""

    status = 408


class SlowAnswerError(RequestError):
    """A request that took too long to compute."""

    status = 504


class TokenError(RequestError):
    """A request without a valid token."""

    status = 401

    def __init__(self, message: str) -> None:
        super().__init__(message, headers={"WWW-Authenticate": "Bearer"})


class HostError(RequestError):
    """A request to a name, or from a page, that the service does not know."""

    status = 403


def status_of(error: Exception) -> int:
    """The HTTP status of an error; 500 for a bug."""
    if isinstance(error, RequestError):
        return error.status
    return next((status for kind, status in STATUS if isinstance(error, kind)), 500)


def describe(error: Exception) -> dict[str, Any]:
    """The JSON body of an error.

    Example:
        >>> describe(AudioError("a.wav is empty"))
        {'error': {'type': 'AudioError', 'message': 'a.wav is empty'}}
    """
    is_known = isinstance(error, (RequestError, *HANDLED))
    kind = type(error).__name__ if is_known else "InternalError"
    return {"error": {"type": kind, "message": str(error) if is_known else INTERNAL}}


def encode(error: Exception) -> bytes:
    """The body as UTF-8."""
    return format_json(describe(error)).encode()
