"""The user's cache of converted and compiled graphs: one folder per content, complete or absent.

An entry is built in a temporary folder and renamed into place, so that several processes may
fill the cache at once and a killed process leaves no partial entry. Its seal holds the hashes of
its files, which are compared whenever it is opened: damaged entries are built again; if the
cache cannot be written, a graph is built for this process alone. Entries that nothing has opened
for 30 days are removed when another is written. Imports neither torch nor transformers.
"""

import hashlib
import json
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from emoser._version import __version__
from emoser.checkpoints.atomic import (
    clear_leftovers,
    new_file,
    new_folder,
    remove_folder,
    scratch_folder,
)
from emoser.checkpoints.files import CheckpointFiles, as_files
from emoser.errors import writes_to
from emoser.json_text import read_json
from emoser.runtimes.manifest import hash_file

VARIABLE = "EMOSER_CACHE"
SEAL = "sealed.json"
KINDS = ("graphs", "compiled")
RECIPE = 6  # version of the conversion; raised when its graphs change
UNUSED_SECONDS = 30 * 24 * 3600.0  # an entry that nothing has opened for so long is removed
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
    known = read_record(memory)
    if known is not None and known.get("stamp") == stamp and isinstance(known.get("hash"), str):
        return str(known["hash"])
    found = files.content_hash
    newest = max(changed for _, changed in files.stamps.values())
    if time.time() - newest / 1e9 > SETTLED_SECONDS:
        write_record(memory, {"stamp": stamp, "hash": found})
    return found


@contextmanager
def open_entry(key: str, build: Callable[[Path], None]) -> Iterator[Entry]:
    """The entry of a key, readable within the block.

    If it is absent or damaged, `build` writes its files into an empty folder.
    """
    found = find_entry("graphs", key, build)
    if isinstance(found, Path):
        yield Entry(found)
        return
    with scratch_folder() as place:
        with writes_to(place):
            build(place)
        note = (
            f"{cache_folder()} cannot be written ({found.strerror or found}), so the model is "
            f"converted each time; set {VARIABLE} to a folder that can be written"
        )
        yield Entry(place, (note,))


def find_entry(kind: str, key: str, build: Callable[[Path], None]) -> Path | OSError:
    """The folder of an entry of one of the `KINDS`, filled by `build` if it is absent or damaged.

    The error of the system if that failed.
    """
    folder = cache_folder() / kind / key
    with suppress(OSError):  # of killed processes
        clear_leftovers(folder.parent)
    with suppress(OSError):
        os.utime(folder / SEAL)  # from now on no other process removes it
    if _is_whole(folder):
        return folder
    problem = _fill(folder, build)
    if problem is None:
        _remove_unused()
    return problem or folder


def _fill(folder: Path, build: Callable[[Path], None]) -> OSError | None:
    """Build an entry in its place; the error of the system if that failed."""
    try:
        with new_folder(folder, overwrite=True) as target:
            build(target)
            text = json.dumps(_seal(target, name=folder.name))
            (target / SEAL).write_text(text, encoding="utf-8")
    except OSError as error:
        if not _is_whole(folder):  # else another process was first
            return error
    return None


def _remove_unused() -> None:
    """Remove the entries that nothing has opened for long; what is mapped into memory stays there.

    Where a user may read the cache only, the system records the times of access instead.
    """
    for kind in KINDS:
        for seal in (cache_folder() / kind).glob(f"[!.]*/{SEAL}"):
            with suppress(OSError):  # another process was first
                opened = max(seal.stat().st_atime, seal.stat().st_mtime)
                if time.time() - opened > UNUSED_SECONDS:
                    remove_folder(seal.parent)


def _is_whole(folder: Path) -> bool:
    """Whether every file of an entry is unchanged since the entry was sealed."""
    known = read_record(folder / SEAL)
    try:
        return known is not None and known == _seal(folder, name=folder.name)
    except OSError:
        return False


def _seal(folder: Path, *, name: str) -> dict[str, Any]:
    """The name of an entry, and the hashes of its files."""
    names = [file for file in as_files(folder).stamps if file != SEAL]
    return {"entry": name, "files": {file: hash_file(folder / file) for file in names}}


def _stamp(files: CheckpointFiles) -> list[list[str | int]]:
    """Names, sizes and times of last change of the files in a folder."""
    return [[name, *stamp] for name, stamp in files.stamps.items()]


def read_record(file: Path) -> dict[str, Any] | None:
    """The object in a file of the cache; None if it cannot be read."""
    with suppress(OSError, ValueError):
        return read_json(file, dict)
    return None


def write_record(file: Path, value: object) -> None:
    """Write a file of the cache atomically; a file that cannot be written is skipped."""
    with suppress(OSError), new_file(file) as written:
        clear_leftovers(file.parent)
        written.write_text(json.dumps(value), encoding="utf-8")
