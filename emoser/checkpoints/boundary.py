"""The boundary between the files of a checkpoint and the caller.

Files that others wrote can be damaged in more ways than a reader can foresee. Whatever reading
them raises leaves this boundary as one of emoser's errors, with the original as its cause.
"""

import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager

from safetensors import SafetensorError

from emoser.errors import CheckpointError, DeviceError, EmoserError

FAULTS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    ImportError,
    LookupError,
    RuntimeError,  # and RecursionError, NotImplementedError
    SafetensorError,
    TypeError,
    ValueError,  # and UnicodeError
    struct.error,
    zipfile.BadZipFile,
)
"""What libraries raise on damaged files; errors of the system have their own messages."""
NO_MEMORY = ("allocate memory", "not enough memory", "out of memory", "bad_alloc")


@contextmanager
def reading(subject: object) -> Iterator[None]:
    """A block that reads files named by `subject`, and raises nothing but emoser's errors.

    Raises:
        CheckpointError: In the place of any error of damaged files.
        DeviceError: If the memory does not suffice.

    Example:
        >>> with reading("model/config.json"):
        ...     [][0]
        Traceback (most recent call last):
        emoser.errors.CheckpointError: model/config.json is damaged or no checkpoint (IndexError: \
list index out of range); download or save it again
    """
    try:
        yield
    except EmoserError:
        raise
    except MemoryError as error:
        raise _no_memory(subject) from error
    except FAULTS as error:
        reason = " ".join(str(error).split())[:200]
        if any(words in reason for words in NO_MEMORY):
            raise _no_memory(subject) from error
        raise CheckpointError(
            f"{subject} is damaged or no checkpoint ({type(error).__name__}: {reason}); download "
            "or save it again"
        ) from error


def _no_memory(subject: object) -> DeviceError:
    return DeviceError(
        f"{subject} does not fit into the memory of this machine; use a smaller model, or end "
        "other programs"
    )
