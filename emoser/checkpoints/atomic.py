"""Replace a folder so that readers see the old version or the new one, never a mixture."""

import ctypes
import os
import platform
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

AT_FDCWD = -100
RENAME_EXCHANGE = 2
OLD = "-old"


@contextmanager
def new_folder(folder: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """A temporary folder that takes the place of `folder` when the block ends without an error.

    After an error inside the block, `folder` is as before and the temporary folder is removed.
    On Linux the exchange is one step, so that a kill at any moment leaves the old version or the
    new one; elsewhere a kill during the exchange leaves the old version under a temporary name,
    from which the next save restores it. Other leftovers of killed processes are removed by the
    next save.

    Raises:
        NotADirectoryError: If the path is a file.
        FileExistsError: If the folder is not empty and `overwrite` is off.
    """
    folder = folder.absolute()
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"{folder} is a file; name a folder to save to")
    folder.parent.mkdir(parents=True, exist_ok=True)
    _clear_leftovers(folder)
    if folder.is_dir() and any(folder.iterdir()) and not overwrite:
        raise FileExistsError(f"{folder} is not empty; pass overwrite=True to replace it")
    temporary = Path(tempfile.mkdtemp(prefix=f"{_prefix(folder)}{os.getpid()}-", dir=folder.parent))
    try:
        os.chmod(temporary, 0o755)
        yield temporary
        _flush(temporary)
        _replace(folder, temporary)
    finally:
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
    machine = re.sub(r"\W", "", platform.node())
    return f".{folder.name}.saving-{machine}-"


def _clear_leftovers(folder: Path) -> None:
    """Remove what dead processes of this machine left, but restore a version moved aside."""
    prefix = _prefix(folder)
    for item in list(folder.parent.iterdir()):
        process = item.name.removeprefix(prefix).split("-")[0]
        if item.name.startswith(prefix) and process.isdigit() and not _is_alive(int(process)):
            if item.name.endswith(OLD) and not folder.exists():
                item.rename(folder)
            else:
                shutil.rmtree(item, ignore_errors=True)


def _is_alive(process: int) -> bool:
    """Whether a process runs; assumed on Windows, where `os.kill` would end it."""
    if os.name == "nt":
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _flush(folder: Path) -> None:
    for file in (item for item in folder.rglob("*") if item.is_file()):
        with file.open("rb") as handle:
            os.fsync(handle.fileno())
