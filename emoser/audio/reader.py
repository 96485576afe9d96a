"""The view of an open file that decoders get: without a name, read-only and seekable."""

import os
from typing import Any, BinaryIO


class ByteReader:
    """A read-only, seekable view of an open file, without the file's name.

    Decoders get this instead of the file: FFmpeg acts on file names, and a C library cannot
    propagate a Python exception. An OSError while reading ends the data and is raised by
    `raise_failure`. Bytes can be replaced in the view, never in the file.

    Args:
        file: Open for reading and seekable; it is not closed.
        start: Position in the file at which the view begins.
        own: Whether nothing else reads from the open file.
    """

    def __init__(self, file: BinaryIO, *, start: int = 0, own: bool = False) -> None:
        self._file = file
        self._own = own
        self._start = start  # of the file's part, in the file
        self._head = b""  # bytes before the file's part
        self._position = 0
        self._patches: list[tuple[int, bytes]] = []
        self._failure: OSError | None = None
        self.size = max(0, file.seek(0, os.SEEK_END) - start)

    def patch(self, offset: int, data: bytes) -> None:
        """Read `data` at `offset` from now on."""
        self._patches.append((offset, data))

    def replace_head(self, num_bytes: int, data: bytes) -> None:
        """Read `data` in place of the first `num_bytes` from now on, before any `patch`."""
        self._start += num_bytes
        self.size += len(data) - num_bytes
        self._head = data
        self._position = 0

    def take_descriptor(self) -> int | None:
        """The descriptor of the file, at its start, if the view is the unchanged file.

        A C library can read from it without calling Python. None if bytes were replaced, if the
        file is the caller's, and on Windows, where libraries do not share descriptors.
        """
        if not self._own or self._start or self._head or self._patches or os.name != "posix":
            return None
        self._file.seek(0)
        descriptor = self._file.fileno()
        os.lseek(descriptor, 0, os.SEEK_SET)  # the position of a buffered file differs
        return descriptor

    def raise_failure(self) -> None:
        """Raise the OSError that ended the data early, if there was one."""
        if self._failure is not None:
            raise self._failure

    def read_at(self, offset: int, size: int) -> bytes:
        """Up to `size` bytes at `offset`, leaving the position after them."""
        self.seek(offset)
        return self.read(size)

    def read(self, size: int = -1) -> bytes:
        """Up to `size` bytes from the position; all that are left if negative."""
        left = max(0, self.size - self._position)
        size = left if size < 0 else min(size, left)
        data = self._head[self._position : self._position + size]
        if len(data) < size:
            data += self._read_file(self._position + len(data) - len(self._head), size - len(data))
        data = self._patched(data)
        self._position += len(data)
        return data

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer from the position; returns the number of bytes.

        soundfile calls it for every 8 KiB, so nothing is copied unless bytes were replaced.
        """
        target = memoryview(buffer)
        if self._patches or self._head:
            data = self.read(len(target))
            target[: len(data)] = data
            return len(data)
        left = max(0, self.size - self._position)
        try:
            self._file.seek(self._start + self._position)
            count = int(self._file.readinto(target[:left]))  # type: ignore[attr-defined]
        except OSError as error:
            self._failure = error
            return 0
        self._position += count
        return count

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move as a file does; positions before the start become the start."""
        origin = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.size}[whence]
        self._position = max(0, origin + offset)
        return self._position

    def tell(self) -> int:
        """The position, counted from the start of the view."""
        return self._position

    def _read_file(self, position: int, size: int) -> bytes:
        try:
            self._file.seek(self._start + position)
            return self._file.read(size)
        except OSError as error:
            self._failure = error
            return b""

    def _patched(self, data: bytes) -> bytes:
        for offset, patch in self._patches:
            first = max(offset, self._position)
            last = min(offset + len(patch), self._position + len(data))
            if first < last:
                at = first - self._position
                piece = patch[first - offset : last - offset]
                data = data[:at] + piece + data[at + len(piece) :]
        return data
