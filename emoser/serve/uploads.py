"""The recording of a request: a raw body or the file of a multipart form, with its turns.

It is kept in memory, or from a megabyte on in a temporary file without a name, until the request
is answered.
"""

import io
import os
from tempfile import SpooledTemporaryFile
from typing import TYPE_CHECKING, Any, NamedTuple

from emoser.serve.errors import TooLargeError, UploadError
from emoser.serve.options import MEGABYTE

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import Message, Receive

MEMORY_BYTES = 2**20
FORM_BYTES = 16_384  # of the boundaries and headers of a form around its file
TURNS_BYTES = 2**20  # of the turns beside the file: several thousand
DRAIN_BYTES = 8 * 2**20  # of a refused body, so that its client reads the answer
FORM = "multipart/form-data"
UNNAMED = "upload"
TURNS = "turns"  # a field of the form


class Upload:
    """The file of a request.

    Attributes:
        file: Its content, with the name that the client gave it and the turns beside it.
    """

    def __init__(self, spool: "SpooledTemporaryFile[bytes]", named: "Named", size: int) -> None:
        spool.seek(0)
        self.file: _MemoryFile | _DiskFile
        if size <= MEMORY_BYTES:
            self.file = _MemoryFile(spool.read())
        else:
            self.file = _DiskFile(os.dup(spool.fileno()))
        self.file.name = named.name.replace("\\", "/").rpartition("/")[2] or UNNAMED
        self.file.turns = named.turns

    def cancel(self) -> None:
        """End the file at its next read, since nobody waits for the answer any more."""
        self.file.cancelled = True


class Named(NamedTuple):
    """What comes with the content of a recording."""

    name: str
    turns: bytes | None = None


class _MemoryFile(io.BytesIO):
    name = UNNAMED
    turns: bytes | None = None
    cancelled = False

    def read(self, size: int | None = -1, /) -> bytes:
        return b"" if self.cancelled else super().read(size)

    def readinto(self, buffer: Any, /) -> int:
        return 0 if self.cancelled else super().readinto(buffer)


class _DiskFile(io.FileIO):
    turns: bytes | None = None
    cancelled = False

    def read(self, size: int | None = -1, /) -> bytes:
        return b"" if self.cancelled else super().read(-1 if size is None else size) or b""

    def readinto(self, buffer: Any, /) -> int:
        return 0 if self.cancelled else super().readinto(buffer) or 0


async def receive_upload(request: "Request", max_bytes: int) -> Upload:
    """The recording of a request; whoever reads its file closes it.

    A raw body has the name in the query parameter `filename`, or none.

    Raises:
        TooLargeError: If it is larger than `max_bytes`.
        UploadError: If there is no recording, or more than one.
    """
    is_form = request.headers.get("content-type", "").partition(";")[0].strip().lower() == FORM
    limit = max_bytes + FORM_BYTES + TURNS_BYTES if is_form else max_bytes
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limit:
        raise TooLargeError(_too_large(max_bytes))
    request._receive = limit_body(request._receive, limit, TooLargeError(_too_large(max_bytes)))
    with SpooledTemporaryFile(MEMORY_BYTES) as spool:
        named = await (_read_form if is_form else _read_body)(request, spool)
        size = spool.tell()
        if not size:
            raise UploadError(
                "the request holds no recording; send the bytes of an audio file as the body, or "
                "as the field `file` of a form"
            )
        if size > max_bytes:
            raise TooLargeError(_too_large(max_bytes))
        return Upload(spool, named, size)


class Body:
    """The messages of a request, which know whether the body has been read to its end."""

    def __init__(self, receive: "Receive") -> None:
        self._receive = receive
        self._complete = False

    async def receive(self) -> "Message":
        """The next message."""
        message = await self._receive()
        self._complete |= not message.get("more_body", False)
        return message

    async def drain(self) -> None:
        """Read the rest of a body that is refused, up to a limit."""
        num_bytes = 0
        while not self._complete and num_bytes < DRAIN_BYTES:
            num_bytes += len((await self.receive()).get("body", b""))


async def _read_body(request: "Request", spool: "SpooledTemporaryFile[bytes]") -> Named:
    async for data in request.stream():
        spool.write(data)
    return Named(request.query_params.get("filename", ""))


async def _read_form(request: "Request", spool: "SpooledTemporaryFile[bytes]") -> Named:
    """Copy the only recording of a form; returns its name and the field `turns`."""
    from starlette.datastructures import UploadFile
    from starlette.exceptions import HTTPException

    try:
        async with request.form(max_files=2, max_fields=8) as form:
            items = form.multi_items()
            files = [item for key, item in items if isinstance(item, UploadFile) and key != TURNS]
            if len(files) != 1:
                raise UploadError(
                    f"the form holds {len(files)} recordings; send one as the field `file`"
                )
            while data := files[0].file.read(MEMORY_BYTES):
                spool.write(data)
            return Named(files[0].filename or "", _read_turns(form.get(TURNS)))
    except HTTPException as error:
        raise UploadError(
            f"the form cannot be read ({error.detail}); send one file as multipart/form-data"
        ) from error


def _read_turns(field: Any) -> bytes | None:
    """The turns of a form, as a file or as text."""
    if field is None or isinstance(field, str):
        return field.encode() if field else None
    turns: bytes = field.file.read(TURNS_BYTES + 1)
    if len(turns) > TURNS_BYTES:
        raise TooLargeError(f"the turns are larger than {TURNS_BYTES:,} bytes; split the recording")
    return turns


def limit_body(receive: "Receive", limit: int, error: Exception) -> "Receive":
    """A `receive` that raises the error as soon as the body is longer than `limit` bytes."""
    num_bytes = 0

    async def counted() -> "Message":
        nonlocal num_bytes
        message = await receive()
        num_bytes += len(message.get("body", b""))
        if num_bytes > limit:
            raise error
        return message

    return counted


def _too_large(max_bytes: int) -> str:
    return (
        f"the upload is larger than {max_bytes / MEGABYTE:g} MB; cut the recording, or send it as "
        "FLAC, Opus or MP3"
    )
