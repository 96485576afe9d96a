"""Write a folder so that others see the old one or the new one, never a mixture.

Knows nothing of what is inside.
"""

import ctypes
import os
import platform
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

AT_CURRENT_FOLDER = -100
RENAME_EXCHANGE = 2


@contextmanager
def new_folder(folder: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """A temporary folder beside `folder` that takes its place when the block ends well.

    A fault inside leaves the old folder as it was and removes the temporary one. A kill leaves
    the old folder or the new one; what it leaves beside is cleared at the next save.

    Raises:
        NotADirectoryError: If the path is a file.
        FileExistsError: If the folder is not empty and `overwrite` is off.
    """
    folder = folder.absolute()
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"{folder} is a file; name a folder to save to")
    if folder.is_dir() and any(folder.iterdir()) and not overwrite:
        raise FileExistsError(f"{folder} is not empty; pass overwrite=True to replace it")
    folder.parent.mkdir(parents=True, exist_ok=True)
    _clear_leftovers(folder)
    temporary = Path(tempfile.mkdtemp(prefix=f"{_prefix(folder)}{os.getpid()}-", dir=folder.parent))
    try:
        os.chmod(temporary, 0o755)
        yield temporary
        _flush(temporary)
        _exchange(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _exchange(temporary: Path, folder: Path) -> None:
    """Put the new folder where the old one is; the old one is then the temporary."""
    if not folder.exists():
        temporary.rename(folder)
    elif not _swap(temporary, folder):
        old = temporary.with_name(f"{temporary.name}-old")
        folder.rename(old)
        temporary.rename(folder)
        shutil.rmtree(old, ignore_errors=True)


def _swap(one: Path, other: Path) -> bool:
    """Exchange two folders in one step, where the system can (Linux); whether it did."""
    if platform.system() != "Linux":
        return False
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    paths = os.fsencode(one), os.fsencode(other)
    done = rename(AT_CURRENT_FOLDER, paths[0], AT_CURRENT_FOLDER, paths[1], RENAME_EXCHANGE)
    return bool(done == 0)


def _prefix(folder: Path) -> str:
    """How temporary folders of this machine begin; the number of the process follows."""
    machine = re.sub(r"\W", "", platform.node())
    return f".{folder.name}.saving-{machine}-"


def _clear_leftovers(folder: Path) -> None:
    """Remove what processes of this machine that are no more have left beside the folder."""
    prefix = _prefix(folder)
    for item in folder.parent.iterdir():
        number = item.name.removeprefix(prefix).split("-")[0]
        if item.name.startswith(prefix) and number.isdigit() and not _is_alive(int(number)):
            shutil.rmtree(item, ignore_errors=True)


def _is_alive(process: int) -> bool:
    """Whether a process runs; where asking would end it (Windows), it is taken to."""
    if os.name == "nt":
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _flush(folder: Path) -> None:
    for file in (item for item in folder.rglob("*") if item.is_file()):
        with file.open("rb") as handle:
            os.fsync(handle.fileno())
