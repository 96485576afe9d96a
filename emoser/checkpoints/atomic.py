"""Replace a folder so that readers see the old version or the new one, never a mixture."""

import ctypes
import errno
import hashlib
import os
import platform
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from emoser.errors import writes_to

AT_FDCWD = -100
RENAME_EXCHANGE = 2
OLD = "-old"
LONGEST_NAME = 150  # bytes; 255 are possible in most places
OLD_SECONDS = 24 * 3600.0  # after which a temporary folder is nobody's
LEFTOVER = re.compile(r"\.(?P<name>.+)\.saving-(?P<machine>\w*)-(?P<process>\d+)-[^-]*(-old)?")


@contextmanager
def new_folder(folder: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """A temporary folder that takes the place of `folder` when the block ends without an error.

    After an error inside the block, `folder` is as before and the temporary folder is removed.
    On Linux the exchange is one step, so that a kill at any moment leaves the old version or the
    new one; elsewhere a kill during the exchange leaves the old version under a temporary name,
    from which the next save restores it. Leftovers of killed processes are removed by the next
    save.

    Raises:
        NotADirectoryError: If the path is a file.
        FileExistsError: If the folder is not empty and `overwrite` is off.
        DiskError: If the disk is full.
    """
    with writes_to(folder):
        yield from _new_folder(folder.absolute(), overwrite)


def _new_folder(folder: Path, overwrite: bool) -> Iterator[Path]:
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"{folder} is a file; name a folder to save to")
    folder.parent.mkdir(parents=True, exist_ok=True)
    clear_leftovers(folder.parent, folder.name)
    if folder.is_dir() and any(folder.iterdir()) and not overwrite:
        raise FileExistsError(f"{folder} is not empty; pass overwrite=True to replace it")
    prefix = f"{_prefix(folder)}{os.getpid()}-"
    with _naming(folder):
        temporary = Path(tempfile.mkdtemp(prefix=prefix, dir=folder.parent))
    try:
        os.chmod(temporary, 0o755)
        with writes_to(folder):  # while what was written is still there
            yield temporary
            _flush(temporary)
        _replace(folder, temporary)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def remove_folder(folder: Path) -> None:
    """Remove a folder so that readers see all of it or nothing.

    What a process killed meanwhile leaves is removed with its other leftovers.

    Raises:
        OSError: If the folder is missing or may not be moved.
    """
    temporary = _temporary(folder)
    folder.rename(temporary)
    shutil.rmtree(temporary, ignore_errors=True)


def _replace(folder: Path, temporary: Path) -> None:
    """Put `temporary` in the place of `folder`; an old version ends up as `temporary`."""
    try:
        temporary.rename(folder)  # works where the folder is missing or empty
    except OSError:
        if not folder.is_dir():
            raise
        if not _exchange(temporary, folder):
            old = temporary.with_name(f"{temporary.name}{OLD}")
            folder.rename(old)
            temporary.rename(folder)
            shutil.rmtree(old, ignore_errors=True)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two folders in one step, which only Linux can; whether it was done.

    Python has no call for it: `os.replace` refuses a folder that is not empty.
    """
    if platform.system() != "Linux":
        return False
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    paths = os.fsencode(one), os.fsencode(other)
    return bool(rename(AT_FDCWD, paths[0], AT_FDCWD, paths[1], RENAME_EXCHANGE) == 0)


def _prefix(folder: Path) -> str:
    """Prefix of temporary folders of this machine; the process id follows."""
    return f".{_short(folder.name)}.saving-{_machine()}-"


def _temporary(path: Path) -> Path:
    """A new name beside a path, which shows whose it is."""
    return path.with_name(f"{_prefix(path)}{os.getpid()}-{secrets.token_hex(4)}")


def _short(name: str) -> str:
    """A name, or for one that leaves no room for more in its folder a hash of it."""
    data = os.fsencode(name)
    return name if len(data) <= LONGEST_NAME else hashlib.sha256(data).hexdigest()


def _machine() -> str:
    return re.sub(r"\W", "", platform.node())


def clear_leftovers(place: Path, name: str = "*") -> None:
    """Remove what killed processes left beside the folders of a place that have this name.

    These are the temporary folders and files of dead processes of this machine, and those of any
    machine, such as of a container that is gone, in which nothing has changed for a day. A version
    that was moved aside for one that never came is restored.
    """
    if not place.is_dir():
        return
    for item in list(place.iterdir()):
        found = LEFTOVER.fullmatch(item.name)
        if (
            found is None
            or (name != "*" and found["name"] != _short(name))
            or _is_in_use(item, found)
        ):
            continue
        folder = place / (found["name"] if name == "*" else name)
        if item.name.endswith(OLD) and not folder.exists():
            item.rename(folder)
        elif item.is_dir():
            shutil.rmtree(item, ignore_errors=True)
        else:
            item.unlink(missing_ok=True)


def _is_in_use(item: Path, found: re.Match[str]) -> bool:
    """Whether the process that made a temporary folder may still be writing into it."""
    if found["machine"] == _machine():
        return is_alive(int(found["process"])) and not _is_old(item)
    return not _is_old(item)


def _is_old(item: Path) -> bool:
    """Whether nothing in it has changed for a day."""
    try:
        return time.time() - max(part.stat().st_mtime for part in _members(item)) > OLD_SECONDS
    except OSError:  # it is being written, or is gone
        return False


def _members(item: Path) -> Iterator[Path]:
    yield item
    yield from item.rglob("*")


@contextmanager
def new_file(file: Path) -> Iterator[Path]:
    """A temporary file that takes the place of `file` when the block ends without an error.

    A link is replaced, and what it points to is left alone. A device or a pipe is written itself.

    Raises:
        DiskError: If the disk is full.
    """
    if file.exists() and not (file.is_file() or file.is_dir()):
        with writes_to(file):
            yield file
        return
    if file.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(file))
    temporary = _temporary(file)
    try:
        with writes_to(file), _naming(file):
            file.parent.mkdir(parents=True, exist_ok=True)
            clear_leftovers(file.parent, file.name)
            yield temporary
        os.replace(temporary, file)
    finally:
        with suppress(OSError):  # it is gone, or has never been there
            temporary.unlink()


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Errors of temporary files beside a path name the path."""
    try:
        yield
    except OSError as error:
        if str(error.filename).startswith(str(path.with_name(_prefix(path)))):
            error.filename = os.fspath(path)
        raise


def write_text(file: Path, text: str) -> None:
    """Write a text file; a reader sees the old version or the new one.

    Raises:
        DiskError: If the disk is full.
    """
    with new_file(file) as written:
        written.write_text(text, encoding="utf-8", newline="")


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder for temporary files, removed at the end; those of killed processes go first."""
    mine = f"emoser-{_machine()}-"
    for former in Path(tempfile.gettempdir()).glob(f"{mine}*"):
        process = former.name.removeprefix(mine).partition("-")[0]
        if process.isdecimal() and not is_alive(int(process)):
            shutil.rmtree(former, ignore_errors=True)  # does not follow links
    prefix = f"{mine}{os.getpid()}-"
    with tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def is_alive(process: int) -> bool:
    """Whether a process runs; assumed on Windows, where `os.kill` would end it."""
    if os.name == "nt":
        return True
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


def _flush(folder: Path) -> None:
    for file in (item for item in folder.rglob("*") if item.is_file()):
        with file.open("rb") as handle:
            os.fsync(handle.fileno())
