"""Find the recordings of a folder or a pattern in a stable order, and split them into shards.

Uses file names only and opens no file. Folders may be nested as deep as the system allows; what
cannot be read is found too, so that it is reported and not passed over.
"""

import glob
import os
import re
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from itertools import takewhile
from pathlib import Path

from emoser.audio.sniffing import AUDIO_SUFFIXES
from emoser.errors import AudioError
from emoser.text import printable


def is_recording(path: str | os.PathLike[str]) -> bool:
    """Whether a file is taken for a recording by its name, in any case of its suffix.

    Hidden files are not: a Mac writes a companion `._call.wav` of every `call.wav` to other disks.

    Example:
        >>> [is_recording(name) for name in ("a/call.WAV", "a/._call.wav", "notes.txt")]
        [True, False, False]
    """
    name = os.path.basename(path)
    return os.path.splitext(name)[1].lower() in AUDIO_SUFFIXES and not name.startswith(".")


def find_recordings(folder: str | os.PathLike[str]) -> list[str]:
    """The audio files under a folder, each folder's files before its subfolders'.

    Names decide, as `is_recording` says. A subfolder that cannot be read is in the list itself,
    so that reading it gives its error. Links to folders are not followed.

    Raises:
        AudioError: If there are none.
        NotADirectoryError: If `folder` is not a folder.
        OSError: If it cannot be read.
    """
    place = os.fspath(folder)
    if not Path(place).is_dir():
        raise NotADirectoryError(f"{printable(place)} is not a folder; pass one to search")
    found = []
    for path, error in walk_files(place):
        if error is not None and path == place:
            raise explain_unreadable(error, path)
        if error is not None or is_recording(path):
            found.append(path)
    if not found:
        raise AudioError(
            f"{printable(place)} holds no audio file; name a file to have it read all the same"
        )
    return found


def walk_files(folder: str) -> Iterator[tuple[str, OSError | None]]:
    """All files under a folder in a stable order, however deep, with None.

    A folder that cannot be read is given with its error. Links to folders are not followed.
    """
    places = [folder]
    while places:
        place = places.pop()
        try:
            with os.scandir(place) as entries:
                members = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            yield place, error
            continue
        yield from ((entry.path, None) for entry in members if not _is_folder(entry, links=True))
        places += [entry.path for entry in reversed(members) if _is_folder(entry, links=False)]


def _is_folder(entry: "os.DirEntry[str]", *, links: bool) -> bool:
    """Whether an entry is a folder or, with `links`, a link to one."""
    try:
        return entry.is_dir(follow_symlinks=links)
    except OSError:  # of a link that cannot be followed
        return False


def match_files(pattern: str) -> list[str]:
    """The files that match a glob pattern, sorted; "**" stands for any number of folders.

    With "**", a folder that cannot be read is in the list as in `find_recordings`.
    """
    head, recursive, _ = pattern.partition("**")
    if not recursive:
        return sorted(item for item in glob.glob(pattern) if os.path.isfile(item))
    root, wanted = os.path.dirname(head), _parts(pattern)
    found = []
    for start in filter(os.path.isdir, glob.glob(root) if root else [os.curdir]):
        for path, error in walk_files(start):
            name = path if root else path.removeprefix(f"{os.curdir}{os.sep}")
            if error is not None or (os.path.isfile(path) and _fits(_parts(name), wanted)):
                found.append(name)
    return sorted(found)


def _parts(path: str) -> list[str]:
    return [part for part in path.replace(os.sep, "/").split("/") if part]


def _fits(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether the parts of a path fit those of a pattern; "*" stands for no leading dot."""
    if not pattern:
        return not parts
    if pattern[0] == "**":
        visible = len(list(takewhile(lambda part: not part.startswith("."), parts)))
        return any(_fits(parts[skipped:], pattern[1:]) for skipped in range(visible + 1))
    if not parts or (parts[0].startswith(".") and not pattern[0].startswith(".")):
        return False
    return fnmatch(parts[0], pattern[0]) and _fits(parts[1:], pattern[1:])


def explain_unreadable(error: OSError, folder: str) -> OSError:
    """The error of a folder that cannot be read, with a message for users."""
    reason = (error.strerror or str(error)).lower()
    explained = type(error)(f"{printable(folder)} cannot be searched ({reason}); check the folder")
    explained.errno = error.errno
    return explained


def parse_shard(text: str) -> tuple[int, int]:
    """Parse a shard: "3/16" is the third of sixteen.

    Raises:
        ValueError: If the text has another form.

    Example:
        >>> parse_shard("3/16")
        (3, 16)
    """
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    number, count = map(int, found.groups()) if found else (0, 0)
    if not 1 <= number <= count:
        raise ValueError(f"shard is {text!r}; write 1/{count or 4} to {count or 4}/{count or 4}")
    return number, count


def choose_shard(names: Sequence[str], number: int, count: int) -> Sequence[str]:
    """Every `count`-th name from the `number`-th on: each name is in one shard.

    Example:
        >>> choose_shard(["a", "b", "c", "d", "e"], 2, 3)
        ['b', 'e']
    """
    return names[number - 1 :: count]
