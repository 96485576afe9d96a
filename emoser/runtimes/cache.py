"""The user's cache of converted graphs: one folder per content, complete or absent.

An entry is built in a temporary folder and renamed into place, so that several processes may
fill the cache at once and a killed process leaves no partial entry. Damaged entries are built
again; if the cache cannot be written, a graph is built for this process alone. Imports neither
torch nor transformers.
"""

import hashlib
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from emoser._version import __version__
from emoser.checkpoints.atomic import clear_leftovers, new_file, new_folder
from emoser.checkpoints.files import CheckpointFiles, as_files
from emoser.errors import writes_to

VARIABLE = "EMOSER_CACHE"
SEAL = "sealed.json"
RECIPE = 3  # version of the conversion; raised when its graphs change
SETTLED_SECONDS = 2.0  # a younger file may change again within one tick of its clock


class Entry(NamedTuple):
    """A graph that may be read.

    Attributes:
        folder: The folder that holds its files.
        notes: Remarks for the user, such as a cache that cannot be written; usually none.
    """

    folder: Path
    notes: tuple[str, ...] = ()


def cache_folder() -> Path:
    """The folder of converted graphs: `EMOSER_CACHE`, or in the system's folder for caches.

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
    """The name of the cache entry of a checkpoint's converted graph, unique to its content.

    The `parts` are what else determines it: format, precision, versions of packages.
    """
    text = json.dumps(
        {"weights": hash_weights(files), "recipe": RECIPE, "emoser": __version__, **parts}
    )
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def hash_weights(files: CheckpointFiles) -> str:
    """The `content_hash` of a checkpoint, remembered for as long as no file of it changes."""
    stamp = _stamp(files)
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
    """The entry of a key, readable within the block.

    If it is absent or damaged, `build` writes its files into an empty folder.
    """
    folder = cache_folder() / "graphs" / key
    with suppress(OSError):  # of killed processes
        clear_leftovers(folder.parent)
    problem = None if _is_whole(folder) else _fill(folder, build)
    if problem is None:
        yield Entry(folder)
        return
    with tempfile.TemporaryDirectory(prefix="emoser-", ignore_cleanup_errors=True) as place:
        with writes_to(place):
            build(Path(place))
        note = (
            f"{cache_folder()} cannot be written ({problem.strerror or problem}), so the model is "
            f"converted each time; set {VARIABLE} to a folder that can be written"
        )
        yield Entry(Path(place), (note,))


def _fill(folder: Path, build: Callable[[Path], None]) -> OSError | None:
    """Build an entry in its place; the error of the system if that failed."""
    try:
        with new_folder(folder, overwrite=True) as target:
            build(target)
            (target / SEAL).write_text(json.dumps(_stamp(as_files(target))), encoding="utf-8")
    except OSError as error:
        if not _is_whole(folder):  # else another process was first
            return error
    return None


def _is_whole(folder: Path) -> bool:
    """Whether every file of an entry is unchanged since the entry was sealed."""
    try:
        return bool(_read_json(folder / SEAL) == _stamp(as_files(folder)))
    except OSError:
        return False


def _stamp(files: CheckpointFiles) -> list[list[str | int]]:
    """Names, sizes and times of last change of the files in a folder, but its seal."""
    return [[name, *stamp] for name, stamp in files.stamps.items() if name != SEAL]


def _read_json(file: Path) -> Any:
    """The contents of a file; None if it cannot be read."""
    with suppress(OSError, ValueError):
        return json.loads(file.read_text(encoding="utf-8"))
    return None


def _write_json(file: Path, value: object) -> None:
    """Write a file atomically; a file that cannot be written is skipped."""
    with suppress(OSError), new_file(file) as written:
        clear_leftovers(file.parent)
        written.write_text(json.dumps(value), encoding="utf-8")
