"""The view of an open file that decoders get: without a name, read-only and seekable."""

import os
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, BinaryIO, TypeAlias

from emoser.errors import unreadable_audio

Piece: TypeAlias = bytes | range
"""Bytes as they are, or positions whose bytes are read."""


class ByteReader:
    """A read-only, seekable view of an open file, without the file's name.

    Decoders get this instead of the file: FFmpeg acts on file names, and a C library cannot
    propagate a Python exception. An OSError while reading ends the data and is raised by
    `raise_failure`. Bytes can be replaced or left out in the view, never in the file.

    Args:
        file: Open for reading and seekable; it is not closed.
        start: Position in the file at which the view begins.
        own: Whether nothing else reads from the open file.

    Example:
        >>> import io
        >>> reader = ByteReader(io.BytesIO(b"0123456789"))
        >>> reader.patch(1, b"ab")
        >>> reader.read(4), reader.select([range(4, 6), b"-", range(2)]).read()
        (b'0ab3', b'45-0a')
    """

    size: int
    _position: int

    def __init__(self, file: BinaryIO, *, start: int = 0, own: bool = False) -> None:
        self._file = file
        self._own = own
        self._file_size = file.seek(0, os.SEEK_END)
        self._failures: list[OSError] = []  # shared with the views made of this one
        self._arrange([range(start, max(start, self._file_size))])

    def patch(self, offset: int, data: bytes) -> None:
        """Read `data` at `offset` from now on."""
        stop = offset + len(data)
        self._arrange(self._resolve([range(offset), data, range(stop, self.size)]))

    def select(self, pieces: Iterable[Piece]) -> "ByteReader":
        """A view of pieces of this one, in their order, with a position of its own."""
        view = object.__new__(ByteReader)
        view._file, view._own = self._file, self._own
        view._file_size, view._failures = self._file_size, self._failures
        view._arrange(self._resolve(pieces))
        return view

    def take_descriptor(self) -> int | None:
        """The descriptor of the file, at its start, if the view is the unchanged file.

        A C library can read from it without calling Python. None if bytes were replaced, if the
        file is the caller's, and on Windows, where libraries do not share descriptors.
        """
        if not self._own or self._pieces != [range(self._file_size)] or os.name != "posix":
            return None
        self._file.seek(0)
        descriptor = self._file.fileno()
        os.lseek(descriptor, 0, os.SEEK_SET)  # the position of a buffered file differs
        return descriptor

    def raise_failure(self, name: str) -> None:
        """Raise the error that ended the data of the file `name` early, if there was one."""
        for error in self._failures:
            reason = (error.strerror or str(error)).lower()
            message = f"{name} cannot be read to its end ({reason}); check the disk or copy it"
            raise unreadable_audio(error, message) from error

    def read_at(self, offset: int, size: int) -> bytes:
        """Up to `size` bytes at `offset`, leaving the position after them."""
        self.seek(offset)
        return self.read(size)

    def read(self, size: int = -1) -> bytes:
        """Up to `size` bytes from the position; all that are left if negative."""
        left = max(0, self.size - self._position)
        data = bytearray(left if size < 0 else min(size, left))
        return bytes(data[: self.readinto(data)])

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer from the position; returns the number of bytes."""
        target = memoryview(buffer).cast("B")
        num_read = 0
        while num_read < len(target) and self._position < self.size:
            count = self._read_piece(target[num_read:])
            if not count:
                break
            num_read += count
            self._position += count
        return num_read

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move as a file does; positions before the start become the start."""
        origin = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.size}[whence]
        self._position = max(0, origin + offset)
        return self._position

    def tell(self) -> int:
        """The position, counted from the start of the view."""
        return self._position

    def _arrange(self, pieces: Iterable[Piece]) -> None:
        self._pieces = [piece for piece in pieces if len(piece)]
        self._stops = list(accumulate(map(len, self._pieces)))
        self.size = self._stops[-1] if self._stops else 0
        self._position = 0

    def _resolve(self, pieces: Iterable[Piece]) -> Iterator[Piece]:
        """Pieces of the view as pieces of the file."""
        for piece in pieces:
            if isinstance(piece, bytes):
                yield piece
                continue
            for own, stop in zip(self._pieces, self._stops, strict=True):
                start = stop - len(own)
                yield own[max(0, piece.start - start) : max(0, piece.stop - start)]

    def _read_piece(self, target: memoryview) -> int:
        """Fill from the piece at the position alone."""
        place = bisect_right(self._stops, self._position)
        piece = self._pieces[place]
        at = self._position - (self._stops[place] - len(piece))
        size = min(len(target), len(piece) - at)
        if isinstance(piece, bytes):
            target[:size] = piece[at : at + size]
            return size
        try:
            self._file.seek(piece.start + at)
            return int(self._file.readinto(target[:size]))  # type: ignore[attr-defined]
        except OSError as error:
            self._failures.append(error)
            return 0


@dataclass(frozen=True)
class Extent:
    """Where one recording lies in a file that may hold more."""

    view: ByteReader  # what the decoder gets
    end: int  # position after the recording; what follows is another one, or no sound
    is_cut: bool = False  # sound is missing at its end or within
    num_frames: int | None = None  # at its own rate, where the decoder only estimates it
