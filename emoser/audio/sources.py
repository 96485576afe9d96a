"""Sources of audio: a short name for each, and its bytes as a seekable reader.

Writes no file next to the user's, closes only what it opened, and restores the position of a
caller's file object.
"""

import errno
import inspect
import io
import os
import re
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, BinaryIO, Protocol, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from emoser.audio.arrays import is_tensor
from emoser.audio.limits import AudioLimits
from emoser.audio.reader import ByteReader
from emoser.audio.sniffing import SEARCH_BYTES, refuse_unknown
from emoser.audio.wrappers import peel, wrapped_name
from emoser.errors import AudioError, unreadable_audio, writes_to
from emoser.text import printable


class TensorLike(Protocol):
    """A torch tensor, described by its methods because this package never imports torch."""

    def detach(self) -> Any:
        """The tensor without its gradient."""

    def cpu(self) -> Any:
        """The tensor in main memory."""


class UploadLike(Protocol):
    """An upload of Starlette or FastAPI."""

    @property
    def filename(self) -> str | None:
        """The name that the client gave."""

    @property
    def file(self) -> Any:
        """The binary file object."""


class DecoderLike(Protocol):
    """An AudioDecoder of torchcodec or datasets."""

    def get_all_samples(self) -> Any:
        """The samples with their rate."""


class SegmentLike(Protocol):
    """An AudioSegment of pydub."""

    def get_array_of_samples(self) -> Any:
        """The interleaved samples."""


WrappedSource: TypeAlias = UploadLike | DecoderLike | SegmentLike
Source: TypeAlias = (
    str
    | os.PathLike[str]
    | bytes
    | bytearray
    | memoryview
    | BinaryIO
    | NDArray[Any]
    | TensorLike
    | Mapping[str, Any]
    | tuple[int, NDArray[Any]]
    | tuple[NDArray[Any], int]
    | WrappedSource
)

SPOOL_MEMORY_BYTES = 32 * 2**20  # a stream larger than this goes to an anonymous temporary file
COPY_BYTES = 2**20
_MAX_NAME = 255  # characters of a name that the system refuses, as shown
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_BYTES = (bytes, bytearray, memoryview)


def describe_source(source: Source) -> str:
    """The short name of a source in messages and rows: printable, on one line.

    Example:
        >>> describe_source("calls/monday.wav")
        'calls/monday.wav'
        >>> describe_source({"bytes": b"RIFF", "path": "call.wav"})
        'call.wav'
        >>> describe_source(np.zeros((2, 16000)))
        'array of shape (2, 16000)'
    """
    name = source_name(source)
    if name is not None:
        return printable(name)
    inner = peel(source)
    if isinstance(inner, _BYTES):
        return f"{memoryview(inner).nbytes} bytes"
    if isinstance(inner, np.ndarray):
        return f"array of shape {inner.shape}"
    if is_tensor(inner):
        return f"tensor of shape {tuple(cast(Any, inner).shape)}"
    return f"{type(source).__name__} object"


def source_name(source: Source) -> str | None:
    """The path of a file or the name of a file object, unchanged; None without one."""
    inner, wrapped = peel(source), wrapped_name(source)
    if wrapped is not None:
        return wrapped
    if isinstance(inner, str | os.PathLike):
        return os.fsdecode(inner)
    name = getattr(inner, "name", None) if hasattr(inner, "read") else None
    return os.fsdecode(name) if isinstance(name, str | bytes | os.PathLike) else None


@contextmanager
def open_source(source: Any, limits: AudioLimits, name: str) -> Iterator[ByteReader]:
    """The bytes of a path, of bytes or of a binary file object, called `name` in messages.

    A file object is read from its position. One that cannot seek, or is neither a regular file
    nor memory, is copied first, up to `limits.max_bytes`. A missing file, a directory and a
    missing permission raise the OSError that Python has for it.
    """
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
            "array, a torch tensor, a row of datasets or a pair (rate, samples) is allowed"
        )


def _open_path(path: str | os.PathLike[str], name: str) -> BinaryIO:
    if isinstance(path, str) and _URL.match(path):
        raise AudioError(
            f"{name} is a URL and nothing is fetched from the network; "
            "download it first and pass the file or its bytes"
        )
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISDIR(mode):
            os.scandir(path).close()
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not stat.S_ISREG(mode):
            raise AudioError(
                f"{name} is a pipe, a socket or a device, not a regular file; "
                "open it yourself and pass the file object if it is meant to be read"
            )
        return open(path, "rb", buffering=0)  # decoders buffer themselves
    except AudioError:
        raise
    except OSError as error:
        raise unreadable_audio(error, _explain(error, path, name)) from error
    except ValueError as error:  # of a path with a zero byte
        raise AudioError(f"{name} is no path ({error}); check it") from error


def _explain(error: OSError, path: str | os.PathLike[str], name: str) -> str:
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return f"{name or 'an empty path'} does not exist; check the path"
    if isinstance(error, IsADirectoryError):
        return f"{name} is a folder; pass its files, or use emoser.bulk"
    if isinstance(error, PermissionError):
        kind = " is a folder that" if os.path.isdir(path) else ""
        return f"{name}{kind} may not be read; change its permissions"
    shown = name if len(name) <= _MAX_NAME else f"{name[:_MAX_NAME]}..."
    return f"{shown} cannot be read ({(error.strerror or str(error)).lower()}); check the path"


@contextmanager
def _open_file_object(file: BinaryIO, limits: AudioLimits, name: str) -> Iterator[ByteReader]:
    if isinstance(file, io.TextIOBase):
        raise TypeError(f"{name} is open in text mode; open it with mode 'rb'")
    if inspect.iscoroutinefunction(file.read):
        raise TypeError(f"{name} is read with await; pass the bytes that `await file.read()` gives")
    if not _is_plain_file(file):
        with tempfile.SpooledTemporaryFile(SPOOL_MEMORY_BYTES) as spool, _put_back(file):
            with writes_to(tempfile.gettempdir()):
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


@contextmanager
def _put_back(file: BinaryIO) -> Iterator[None]:
    """Restore the position of a file object that can seek."""
    seekable = getattr(file, "seekable", None)
    start = file.tell() if seekable is not None and seekable() else None
    yield
    if start is not None:
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
