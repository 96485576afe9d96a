"""Find the recordings of a folder in a stable order, and split them into shards.

Uses file names only and opens no file.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from emoser.errors import AudioError

AUDIO_SUFFIXES = frozenset(
    ".wav .flac .ogg .oga .opus .mp3 .aif .aiff .aifc .caf .au .w64 "
    ".m4a .mp4 .aac .webm .mka .mkv .amr .wma .mov".split()
)


def find_recordings(folder: str | os.PathLike[str]) -> list[str]:
    """The audio files under a folder by their suffix, each folder's files before its subfolders'.

    Links to folders are not followed.

    Raises:
        AudioError: If there are none.
        NotADirectoryError: If `folder` is not a folder.
    """
    if not Path(folder).is_dir():
        raise NotADirectoryError(f"{os.fspath(folder)} is not a folder; pass one to search")
    found = []
    for place, folders, files in os.walk(folder):
        folders.sort()
        found += [
            os.path.join(place, name)
            for name in sorted(files)
            if os.path.splitext(name)[1].lower() in AUDIO_SUFFIXES
        ]
    if not found:
        raise AudioError(
            f"{os.fspath(folder)} holds no audio file; name a file to have it read all the same"
        )
    return found


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
