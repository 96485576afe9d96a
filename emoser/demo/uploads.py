"""Uploaded files: kept while their page is open, and read with progress reports."""

import io
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

from emoser.errors import AudioError

REPORT_STEP = 0.005  # of a file; a report is slower than a read

ReportProgress: TypeAlias = Callable[[float], bool]
"""Takes the completed share, in [0, 1]; returns False to cancel."""


class Uploads:
    """One file per session, deleted when it is replaced or dropped.

    Sessions with the same content share one file, which is deleted with the last of them.

    Example:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile(delete=False) as file:
        ...     uploads = Uploads()
        ...     uploads.hold("session", Path(file.name))
        >>> uploads.drop("session")
        >>> Path(file.name).exists()
        False
    """

    def __init__(self) -> None:
        self._held: dict[str, Path] = {}
        self._lock = threading.Lock()

    def hold(self, session: str, path: Path) -> None:
        """Keep a file for a session and delete the previous one."""
        with self._lock:
            former = self._held.get(session)
            self._held[session] = path
            self._delete(former)

    def find(self, session: str) -> Path | None:
        """The file of a session, None if there is none."""
        with self._lock:
            return self._held.get(session)

    def drop(self, session: str) -> None:
        """Delete the file of a session."""
        with self._lock:
            self._delete(self._held.pop(session, None))

    def drop_all(self) -> None:
        """Delete all files."""
        for session in list(self._held):
            self.drop(session)

    def _delete(self, path: Path | None) -> None:
        if path is not None and path not in self._held.values():
            path.unlink(missing_ok=True)


class ProgressFile(io.FileIO):
    """A file that reports how much of it has been read. Its `name` does not reveal its folder.

    Args:
        path: The file.
        report: Called with the share read so far. After it returns False, reads return the end
            of the file, since decoders in C cannot handle an exception.

    Raises:
        AudioError: If the file was deleted.
    """

    def __init__(self, path: Path, report: ReportProgress) -> None:
        try:
            super().__init__(path)
        except FileNotFoundError as error:
            raise AudioError(f"{path.name} has been deleted; upload it again") from error
        self.name = path.name
        self._report = report
        self._size = max(os.fstat(self.fileno()).st_size, 1)
        self._num_read = 0
        self._reported = 0.0
        self._is_active = True

    def read(self, size: int | None = -1, /) -> bytes:
        """See `io.FileIO`."""
        if not self._is_active:
            return b""
        data = super().read(-1 if size is None else size) or b""
        self._count(len(data))
        return data

    def readinto(self, buffer: Any, /) -> int:
        """See `io.FileIO`."""
        if not self._is_active:
            return 0
        num_read = super().readinto(buffer) or 0
        self._count(num_read)
        return num_read

    def _count(self, num_read: int) -> None:
        self._num_read += num_read
        share = min(self._num_read / self._size, 1.0)
        if share >= self._reported + REPORT_STEP:
            self._reported = share
            self._is_active = self._report(share)
