"""Keep the messages of libmpg123 off standard error.

libsndfile leaves no way to silence it. Its C code writes to the variable `stderr` of the C
library, which the GNU C library documents as assignable: while an MP3 is decoded, it names a
stream in memory, from which everything but libmpg123's lines is passed on. Descriptor 2 and
`sys.stderr` stay as they are, so no other output is lost. With another C library nothing is done.
"""

import atexit
import ctypes
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

_PREFIX = b"[src/libmpg123/"
_opening = threading.Lock()


class _MemoryStream:
    """A stream in memory that `stderr` of the C library can name."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(None)
        self._library.open_memstream.restype = ctypes.c_void_p
        self._variable = ctypes.c_void_p.in_dll(self._library, "stderr")
        self._text, self._size = ctypes.c_void_p(), ctypes.c_size_t()
        address = self._library.open_memstream(ctypes.byref(self._text), ctypes.byref(self._size))
        self._stream = ctypes.c_void_p(address)
        self._former = self._variable.value
        self._num_users = 0
        self._lock = threading.Lock()
        # A thread that had read the variable before `leave` may write after it.
        atexit.register(self._pass_on)

    def enter(self) -> None:
        with self._lock:
            if not self._num_users:
                self._former = self._variable.value
                self._variable.value = self._stream.value
            self._num_users += 1

    def leave(self) -> None:
        with self._lock:
            self._num_users -= 1
            if not self._num_users:
                self._variable.value = self._former
        self._pass_on()

    def _pass_on(self) -> None:
        """Write to standard error what was written meanwhile, but for libmpg123's lines."""
        with self._lock:
            lines = self._take().splitlines(keepends=True)
        if kept := b"".join(line for line in lines if not line.startswith(_PREFIX)):
            os.write(2, kept)

    def _take(self) -> bytes:
        """What was written, which is removed from the stream."""
        self._library.flockfile(self._stream)
        try:
            self._library.fflush(self._stream)
            text = ctypes.string_at(self._text, self._size.value) if self._size.value else b""
            if text:
                self._library.fseek(self._stream, ctypes.c_long(0), os.SEEK_SET)
            return text
        finally:
            self._library.funlockfile(self._stream)


@contextmanager
def without_mpg123_messages() -> Iterator[None]:
    """Within it, threads may decode MP3 and write to standard error as they like."""
    with _opening:
        stream = _open_stream()
    if stream is None:
        yield
        return
    stream.enter()
    try:
        yield
    finally:
        stream.leave()


@cache
def _open_stream() -> _MemoryStream | None:
    """The one stream of the process; None without the GNU C library."""
    return _MemoryStream() if _has_gnu_library() else None


def _has_gnu_library() -> bool:
    try:
        return bool(os.confstr("CS_GNU_LIBC_VERSION"))
    except (AttributeError, ValueError):
        return False
