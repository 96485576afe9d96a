"""Sources of audio: a short name for each, and its bytes as a seekable reader.

Writes no file next to the user's, closes only what it opened, and restores the position of a
caller's file object.
"""

import errno
import io
import os
import re
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, Protocol, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from emoser.audio.arrays import is_tensor
from emoser.audio.limits import AudioLimits
from emoser.audio.reader import ByteReader
from emoser.audio.sniffing import SEARCH_BYTES, refuse_unknown
from emoser.errors import AudioError


class TensorLike(Protocol):
    """A torch tensor, described by its methods because this package never imports torch."""

    def detach(self) -> Any:
        """The tensor without its gradient."""

    def cpu(self) -> Any:
        """The tensor in main memory."""


Source: TypeAlias = (
    "str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | NDArray[Any] | TensorLike"
)

SPOOL_MEMORY_BYTES = 32 * 2**20  # a stream larger than this goes to an anonymous temporary file
COPY_BYTES = 2**20
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_BYTES = (bytes, bytearray, memoryview)


def describe_source(source: Source) -> str:
    """The short name of a source in messages and rows: printable, on one line.

    Example:
        >>> describe_source("calls/monday.wav")
        'calls/monday.wav'
        >>> describe_source(np.zeros((2, 16000)))
        'array of shape (2, 16000)'
    """
    name = source_name(source)
    if name is not None:
        return _printable(name)
    if isinstance(source, _BYTES):
        return f"{memoryview(source).nbytes} bytes"
    if isinstance(source, np.ndarray):
        return f"array of shape {source.shape}"
    if is_tensor(source):
        return f"tensor of shape {tuple(cast(Any, source).shape)}"
    return f"{type(source).__name__} object"


def source_name(source: Source) -> str | None:
    """The path of a file or the name of a file object, unchanged; None without one."""
    if isinstance(source, str | os.PathLike):
        return os.fsdecode(source)
    name = getattr(source, "name", None) if hasattr(source, "read") else None
    return os.fsdecode(name) if isinstance(name, str | bytes) else None


@contextmanager
def open_source(source: Source, limits: AudioLimits) -> Iterator[ByteReader]:
    """The bytes of a path, of bytes or of a binary file object.

    A file object is read from its position. One that cannot seek, or is neither a regular file
    nor memory, is copied first, up to `limits.max_bytes`. A missing file, a directory and a
    missing permission raise the OSError that Python has for it.
    """
    name = describe_source(source)
    if isinstance(source, str | os.PathLike):
        with _open_path(source, name) as file:
            yield _checked(ByteReader(file, own=True), limits, name)
    elif isinstance(source, _BYTES):
        yield _checked(ByteReader(io.BytesIO(source)), limits, name)
    elif callable(getattr(source, "read", None)):
        with _open_file_object(cast(BinaryIO, source), limits, name) as reader:
            yield _checked(reader, limits, name)
    else:
        raise TypeError(
            f"source is a {type(source).__name__}; a path, bytes, a binary file object, a NumPy "
            "array or a torch tensor is allowed"
        )


def _open_path(path: str | os.PathLike[str], name: str) -> BinaryIO:
    if isinstance(path, str) and _URL.match(path):
        raise AudioError(
            f"{name} is a URL and nothing is fetched from the network; "
            "download it first and pass the file or its bytes"
        )
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError as error:
        shown = name or "an empty path"
        raise _explained(error, f"{shown} does not exist; check the path") from error
    if stat.S_ISDIR(mode) and not os.access(path, os.R_OK | os.X_OK):
        denied = PermissionError(errno.EACCES, os.strerror(errno.EACCES), os.fspath(path))
        raise _explained(denied, f"{name} is a folder that may not be read; change its permissions")
    if stat.S_ISDIR(mode):
        fault = IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
        raise _explained(fault, f"{name} is a folder; pass its files, or use emoser.bulk")
    if not stat.S_ISREG(mode):
        raise AudioError(
            f"{name} is a pipe, a socket or a device, not a regular file; "
            "open it yourself and pass the file object if it is meant to be read"
        )
    try:
        return open(path, "rb", buffering=0)  # decoders buffer themselves
    except PermissionError as error:
        raise _explained(error, f"{name} may not be read; change its permissions") from error


def _explained(error: OSError, sentence: str) -> OSError:
    """An error of the same class and number with a message for people."""
    explained = type(error)(sentence)
    explained.errno = error.errno
    return explained


@contextmanager
def _open_file_object(file: BinaryIO, limits: AudioLimits, name: str) -> Iterator[ByteReader]:
    if isinstance(file, io.TextIOBase):
        raise TypeError(f"{name} is open in text mode; open it with mode 'rb'")
    if not _is_plain_file(file):
        with tempfile.SpooledTemporaryFile(SPOOL_MEMORY_BYTES) as spool:
            _copy(file, cast(BinaryIO, spool), limits, name)
            yield ByteReader(cast(BinaryIO, spool))
        return
    start = file.tell()
    try:
        reader = ByteReader(file, start=start)
        if start and not reader.size:
            raise AudioError(f"{name} stands at its end; call seek(0) before passing it")
        yield reader
    finally:
        file.seek(start)


def _is_plain_file(file: BinaryIO) -> bool:
    """Whether it reads memory or a regular file, where only an OSError can occur."""
    raw = getattr(file, "raw", file) if isinstance(file, io.BufferedIOBase) else file
    return isinstance(raw, io.BytesIO | io.FileIO) and file.seekable()


def _copy(file: BinaryIO, spool: BinaryIO, limits: AudioLimits, name: str) -> None:
    """Copy a stream; refuse it as soon as its first bytes show that it is not audio."""
    is_known = False
    while data := file.read(COPY_BYTES):
        if not isinstance(data, bytes | bytearray):
            raise TypeError(f"{name} gives {type(data).__name__}, not bytes; open it in mode 'rb'")
        spool.write(data)
        _refuse_large(spool.tell(), limits, name)
        if not is_known and spool.tell() >= SEARCH_BYTES:
            refuse_unknown(ByteReader(spool), name)
            spool.seek(0, os.SEEK_END)
            is_known = True


def _checked(reader: ByteReader, limits: AudioLimits, name: str) -> ByteReader:
    if not reader.size:
        raise AudioError(f"{name} is empty (0 bytes); record or copy it again")
    _refuse_large(reader.size, limits, name)
    return reader


def _refuse_large(size: int, limits: AudioLimits, name: str) -> None:
    if size > limits.max_bytes:
        raise AudioError(
            f"{name} is larger than {limits.max_bytes} bytes; "
            "cut it, or pass AudioLimits with a larger max_bytes"
        )


def _printable(text: str) -> str:
    """The text with control characters, line ends and undecodable bytes written as escapes."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "surrogatepass").decode()
        for char in text
    )
