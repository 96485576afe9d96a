"""The user's cache of converted graphs: one folder per content, which is whole or not there.

An entry is built in a temporary folder beside its place and renamed into it, so that several
processes may fill the cache at once and a kill leaves nothing half done. Damaged entries are
built again, and where the cache cannot be written a graph is built for this process alone.
Knows nothing of engines, and imports neither torch nor transformers.
"""

import hashlib
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from emoser._version import __version__
from emoser.checkpoints.atomic import new_folder
from emoser.checkpoints.files import CheckpointFiles

VARIABLE = "EMOSER_CACHE"
SEAL = "sealed.json"
RECIPE = 3  # how graphs are written; another number where they would come out different
SETTLED_SECONDS = 2.0  # a file younger than this may change again within one tick of its clock

Stamp = list[list[str | int]]


class Entry(NamedTuple):
    """A graph that may be read.

    Attributes:
        folder: Where its files are.
        notes: What the user should know about how it came here; usually nothing.
    """

    folder: Path
    notes: tuple[str, ...] = ()


def cache_folder() -> Path:
    """Where converted graphs are kept: `EMOSER_CACHE`, or where the system keeps caches.

    Example:
        >>> cache_folder().is_absolute()
        True
    """
    chosen = os.environ.get(VARIABLE)
    if chosen:
        return Path(chosen).expanduser().absolute()
    home = Path.home()
    places = {"Darwin": home / "Library/Caches", "Windows": home / "AppData/Local"}
    place = os.environ.get("LOCALAPPDATA" if os.name == "nt" else "XDG_CACHE_HOME")
    default = places.get(platform.system(), home / ".cache")
    return (Path(place) if place and Path(place).is_absolute() else default) / "emoser"


def make_key(files: CheckpointFiles, parts: Mapping[str, str]) -> str:
    """What tells one converted graph from every other, as the name of its folder.

    Args:
        files: The checkpoint that it is made from.
        parts: What else decides it: format, precision, versions of the packages.

    Raises:
        CheckpointError: If the folder has no weights, or lacks some.
    """
    text = json.dumps(
        {"weights": hash_weights(files), "recipe": RECIPE, "emoser": __version__, **parts}
    )
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def hash_weights(files: CheckpointFiles) -> str:
    """The `content_hash` of a checkpoint, remembered for as long as no file of it changes.

    Raises:
        CheckpointError: If there are no weights, or some are missing.
    """
    stamp = [[name, *values] for name, values in files.stamps.items()]
    name = hashlib.sha256(str(files.folder.resolve()).encode()).hexdigest()[:32]
    memory = cache_folder() / "hashes" / f"{name}.json"
    known = _read_json(memory)
    if isinstance(known, dict) and known.get("stamp") == stamp and "hash" in known:
        return str(known["hash"])
    found = files.content_hash
    newest = max(changed for _, changed in files.stamps.values())
    if time.time() - newest / 1e9 > SETTLED_SECONDS:
        _write_json(memory, {"stamp": stamp, "hash": found})
    return found


@contextmanager
def open_entry(key: str, build: Callable[[Path], None]) -> Iterator[Entry]:
    """The entry of a key, built if it is not there or damaged; readable while the block lasts.

    Args:
        key: What `make_key` gave.
        build: Writes the files of the entry into an empty folder.

    Raises:
        OSError: If not even the system's temporary folder can be written to.
    """
    folder = cache_folder() / "graphs" / key
    problem = None if _is_whole(folder) else _fill(folder, build)
    if problem is None:
        yield Entry(folder)
        return
    with tempfile.TemporaryDirectory(prefix="emoser-", ignore_cleanup_errors=True) as place:
        build(Path(place))
        yield Entry(Path(place), (_describe(problem),))


def _fill(folder: Path, build: Callable[[Path], None]) -> OSError | None:
    """Build an entry in its place; what the system said where that failed."""
    try:
        with new_folder(folder, overwrite=True) as target:
            build(target)
            (target / SEAL).write_text(json.dumps(_stamp(target)), encoding="utf-8")
    except OSError as error:
        if not _is_whole(folder):  # else another process was first
            return error
    return None


def _is_whole(folder: Path) -> bool:
    """Whether every file of an entry is there as it was when the entry was sealed."""
    try:
        return _read_json(folder / SEAL) == _stamp(folder)
    except OSError:
        return False


def _stamp(folder: Path) -> Stamp:
    """Names, sizes and times of change of the files of a folder."""
    rows: Stamp = []
    for file in sorted(folder.iterdir()):
        if file.is_file() and file.name != SEAL:
            status = file.stat()
            rows.append([file.name, status.st_size, status.st_mtime_ns])
    return rows


def _read_json(file: Path) -> object:
    try:
        value: object = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value


def _write_json(file: Path, value: object) -> None:
    """Write a file that others see whole; what cannot be remembered is left."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=file.parent, delete=False) as opened:
            json.dump(value, opened)
        os.replace(opened.name, file)
    except OSError:
        return


def _describe(problem: OSError) -> str:
    return (
        f"{cache_folder()} cannot be written ({problem.strerror or problem}), so the model is "
        f"converted anew each time; name a folder that can be written in {VARIABLE}"
    )
