"""Hashes of the sound of recordings, which a new name, tag or lossless format does not change."""

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from hashlib import blake2b

import numpy as np

from emoser.audio import AudioBlocks
from emoser.audio.blocks import take_channel
from emoser.errors import AudioError
from emoser.finetune.progress import Progress

CONTENT_BYTES = 16
SCALE = 32768.0  # of 16-bit integers


def hash_sound(path: str) -> bytes | None:
    """A hash of the samples of a file at its own rate, in 16 bits; None without any sound in it.

    The channels are mixed. A file that cannot be read has None, too. It is read once while it does
    not change.
    """
    try:
        stated = os.stat(path)
    except OSError:
        return None
    return _hash_samples(path, stated.st_size, stated.st_mtime_ns)


def hash_recordings(paths: Iterable[str]) -> dict[str, bytes]:
    """The hash of each file that has one; a piece of a file counts as the whole file."""
    files = list(dict.fromkeys(paths))
    with ThreadPoolExecutor(max_workers=2) as pool:
        found = Progress(pool.map(hash_sound, files), "hashed files", total=len(files))
        return {file: content for file, content in zip(files, found, strict=True) if content}


@cache
def _hash_samples(path: str, size: int, changed: int) -> bytes | None:
    digest, silent = blake2b(digest_size=CONTENT_BYTES), True
    try:
        with AudioBlocks(path) as blocks:
            for frames in blocks.frames():
                mixed = np.rint(take_channel(frames, None) * SCALE)
                samples = np.clip(mixed, -SCALE, SCALE - 1).astype("<i2")
                silent = silent and not samples.any()
                digest.update(samples.tobytes())
    except (AudioError, OSError):
        return None
    return None if silent else digest.digest()
