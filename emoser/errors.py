"""The errors of emoser, and the exit code of a command for each.

Misuse of a function raises a built-in error (`ValueError`, `TypeError`); these classes are for
recordings, checkpoints, the Hub and the environment. Each is also a subclass of the nearest
built-in error, so that code can catch it without importing emoser.
"""

import errno
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import ClassVar


class EmoserError(Exception):
    """An error of a recording, a checkpoint, the Hub or the environment.

    Example:
        >>> from emoser import load_audio
        >>> try:
        ...     load_audio(b"no sound")
        ... except EmoserError as error:
        ...     print(type(error).__name__, error.exit_code)
        AudioError 3
    """

    exit_code: ClassVar[int] = 1


class AudioError(EmoserError, ValueError):
    """A recording that cannot be decoded, is empty, too long, or holds NaN or infinity."""

    exit_code = 3


class AudioReadError(OSError, AudioError):
    """A recording that the system cannot read; those below are the cases with a class in Python.

    Example:
        >>> from emoser import load_audio
        >>> try:
        ...     load_audio("nowhere.wav")
        ... except FileNotFoundError as error:
        ...     print(isinstance(error, AudioError), error)
        True nowhere.wav does not exist; check the path
    """


class AudioNotFoundError(FileNotFoundError, AudioReadError):
    """A recording that does not exist."""


class AudioIsFolderError(IsADirectoryError, AudioReadError):
    """A folder in the place of a recording."""


class AudioPermissionError(PermissionError, AudioReadError):
    """A recording that may not be read."""


class LeakageError(EmoserError, ValueError):
    """Figures that were asked for on recordings or speakers that a model was trained on."""

    exit_code = 3


class TurnsError(EmoserError, ValueError):
    """Turns of a conversation that cannot be read, or a turn that cannot be predicted.

    Example:
        >>> from emoser import EmotionClassifier
        >>> classifier = EmotionClassifier.from_pretrained("emoser-tiny")
        >>> try:
        ...     classifier.predict_turns("examples/audio/plain.wav", [(2.0, 1.0)])
        ... except TurnsError as error:
        ...     print(error)
        turn 1 is empty: it goes from 2 to 1 s; correct its end or leave it out
    """

    exit_code = 3


class CheckpointError(EmoserError, ValueError):
    """A checkpoint that is damaged, does not fit its configuration, or has an unknown layout."""

    exit_code = 4


class HubError(EmoserError, OSError):
    """A checkpoint could not be downloaded or uploaded: not found, gated, offline, or server error.

    Attributes:
        reason: One of "not-found", "no-revision", "no-file", "no-weights", "gated", "network",
            "server", "rate-limited", "not-cached", "broken-file" and "unknown".
    """

    exit_code = 4

    def __init__(self, message: str, *, reason: str = "unknown") -> None:
        super().__init__(message)
        self.reason = reason


class DependencyError(EmoserError, ImportError):
    """A required package is missing or broken; the message has the pip command."""

    exit_code = 5


class DeviceError(EmoserError, RuntimeError):
    """A requested device that is not available, or that ran out of memory."""

    exit_code = 5


class DiskError(EmoserError, OSError):
    """A file that cannot be written, because the disk is full, over its quota or read-only."""

    exit_code = 5


WRITE_FAULTS: Mapping[int, str] = {
    errno.ENOSPC: "the disk is full; free some space and try again",
    errno.EDQUOT: "the quota of the disk is used up; free some space and try again",
    errno.EFBIG: "a file would be larger than allowed; raise the limit or use another disk",
    errno.EROFS: "the disk is read-only; choose another place",
}
"""What to do about an error of the system that only writing can raise."""

PROBE_BYTES = 2**22


@contextmanager
def writes_to(path: str | os.PathLike[str]) -> Iterator[None]:
    """Name a file or folder in the error if the disk is full while the block writes it.

    torch and OpenVINO raise a `RuntimeError` without a reason if they cannot write, so the reason
    is found out by writing a few megabytes there.

    Raises:
        DiskError: If the disk is full, over its quota or read-only.

    Example:
        >>> with writes_to("model.bin"):
        ...     raise OSError(errno.ENOSPC, "No space left on device")
        Traceback (most recent call last):
        emoser.errors.DiskError: model.bin cannot be written: the disk is full; free some space ...
    """
    try:
        yield
    except OSError as error:
        if error.errno not in WRITE_FAULTS:
            raise
        raise disk_error(error, path) from error
    except RuntimeError as error:
        fault = _probe(path)
        if fault is None:
            raise
        raise disk_error(fault, path) from error


def disk_error(error: OSError, path: str | os.PathLike[str]) -> DiskError:
    """The error of a file that cannot be written; its `errno` is one of `WRITE_FAULTS`."""
    named = DiskError(f"{os.fspath(path)} cannot be written: {WRITE_FAULTS[error.errno or 0]}")
    named.errno = error.errno
    return named


def _probe(path: str | os.PathLike[str]) -> OSError | None:
    """The error of a disk that is full, None if it is not."""
    import tempfile  # takes longer to import than all else here

    place = os.path.abspath(path)
    while not os.path.isdir(place):
        place = os.path.dirname(place)
    try:
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(bytes(PROBE_BYTES))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return error if error.errno in WRITE_FAULTS else None
    return None


def missing_extra(feature: str, extra: str) -> DependencyError:
    """The error for a missing optional package.

    Example:
        >>> print(missing_extra("decoding m4a", "media"))
        decoding m4a needs an optional package; install it with: pip install "emoser[media]"
    """
    return DependencyError(
        f'{feature} needs an optional package; install it with: pip install "emoser[{extra}]"'
    )


def unreadable_audio(error: OSError, message: str) -> AudioReadError:
    """The error of the system as one of emoser, with a message for people.

    Example:
        >>> type(unreadable_audio(PermissionError(13, "denied"), "call.wav may not be read"))
        <class 'emoser.errors.AudioPermissionError'>
    """
    classes = (AudioNotFoundError, AudioIsFolderError, AudioPermissionError)
    kinds = [kind for kind in classes if isinstance(error, kind.__bases__[0])]
    explained = (*kinds, AudioReadError)[0](message)
    explained.errno = error.errno
    return explained
