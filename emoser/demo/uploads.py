"""The files that visitors sent: kept while they are looked at, and read with their progress told.

Knows visitors by a session's name and nothing of pages or sound.
"""

import io
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

from emoser.errors import AudioError

REPORT_STEP = 0.005  # of a file; reports cost more than reads

Report: TypeAlias = Callable[[float], bool]
"""Takes the share that is done, in [0, 1]; False ends the work."""


class Uploads:
    """One file per visitor: the next one, clearing and leaving the page delete it.

    Two visitors who sent the same bytes share one file; the last one to go deletes it.

    Example:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile(delete=False) as file:
        ...     uploads = Uploads()
        ...     uploads.hold("visitor", Path(file.name))
        >>> uploads.drop("visitor")
        >>> Path(file.name).exists()
        False
    """

    def __init__(self) -> None:
        self._held: dict[str, Path] = {}
        self._lock = threading.Lock()

    def hold(self, session: str, path: Path) -> None:
        """Keep a visitor's file and delete the one before it."""
        with self._lock:
            former = self._held.get(session)
            self._held[session] = path
            self._delete(former)

    def find(self, session: str) -> Path | None:
        """The file of a visitor, None without one."""
        with self._lock:
            return self._held.get(session)

    def drop(self, session: str) -> None:
        """Delete the file of a visitor, who cleared it or left."""
        with self._lock:
            self._delete(self._held.pop(session, None))

    def drop_all(self) -> None:
        """Delete everything: the page is taken down."""
        with self._lock:
            paths = set(self._held.values())
            self._held.clear()
            for path in paths:
                self._delete(path)

    def _delete(self, path: Path | None) -> None:
        if path is not None and path not in self._held.values():
            path.unlink(missing_ok=True)


class CountedFile(io.FileIO):
    """A file that tells how much of it has been read, and keeps to itself where it lies.

    Args:
        path: The file.
        report: Called with the share that was read; on False the file ends here, because
            decoders in C know how to meet an end but no exception.

    Raises:
        AudioError: If the file is gone.
    """

    def __init__(self, path: Path, report: Report) -> None:
        try:
            super().__init__(path)
        except FileNotFoundError as error:
            raise AudioError(f"{path.name} is no longer kept here; send it again") from error
        self.name = path.name
        self._report = report
        self._size = max(os.fstat(self.fileno()).st_size, 1)
        self._num_read = 0
        self._told = 0.0
        self._is_wanted = True

    def read(self, size: int | None = -1, /) -> bytes:
        """As of any file."""
        if not self._is_wanted:
            return b""
        data = super().read(-1 if size is None else size) or b""
        self._count(len(data))
        return data

    def readinto(self, buffer: Any, /) -> int:
        """As of any file."""
        if not self._is_wanted:
            return 0
        num_read = super().readinto(buffer) or 0
        self._count(num_read)
        return num_read

    def _count(self, num_read: int) -> None:
        self._num_read += num_read
        share = min(self._num_read / self._size, 1.0)
        if share >= self._told + REPORT_STEP:
            self._told = share
            self._is_wanted = self._report(share)
