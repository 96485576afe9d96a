"""The errors of emoser, and the exit code of a command for each.

Misuse of a function raises a built-in error (`ValueError`, `TypeError`); these classes are for
recordings, checkpoints, the Hub and the environment. Each is also a subclass of the nearest
built-in error, so that code can catch it without importing emoser.
"""

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
