"""Sources that wrap a recording: the objects of other libraries, as a path, bytes, file or array.

They are recognised by what they offer; none of these libraries is imported.
"""

import inspect
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from emoser.audio.arrays import is_array


class Unwrapped(NamedTuple):
    """A source as a path, bytes, a binary file object or an array, and the rate it states."""

    source: Any
    sampling_rate: int | None = None


def unwrap(source: Any) -> Unwrapped:
    """What a source wraps, or the source itself.

    Taken apart are rows of `datasets` (a dictionary with "array" and "sampling_rate", with
    "bytes" or "path", or with one of these under "audio"), its AudioDecoder, pairs of a rate and
    samples in either order, an AudioSegment of pydub, and an UploadFile of Starlette or FastAPI.

    Raises:
        TypeError: If a dictionary or a tuple holds none of these.

    Example:
        >>> unwrap({"bytes": None, "path": "call.wav"}).source
        'call.wav'
        >>> unwrap((8000, np.zeros(4))).sampling_rate
        8000
    """
    if isinstance(source, Mapping):
        return _from_row(source)
    if isinstance(source, tuple):
        return _from_pair(source)
    if _is_upload(source):
        return Unwrapped(source.file)
    if callable(getattr(source, "get_all_samples", None)):  # torchcodec and datasets
        source = source.get_all_samples()
    if hasattr(source, "data") and hasattr(source, "sample_rate"):
        return Unwrapped(source.data, int(source.sample_rate))
    if callable(getattr(source, "get_array_of_samples", None)):
        return _from_segment(source)
    return Unwrapped(source)


def peel(source: Any) -> Any:
    """What a row, a pair or an upload holds, without decoding anything; the source if nothing."""
    if isinstance(source, Mapping) and "audio" in source:
        return peel(source["audio"])
    if isinstance(source, Mapping | tuple) or _is_upload(source):
        try:
            return unwrap(source).source
        except TypeError:
            return source
    return source


def wrapped_name(source: Any) -> str | None:
    """The name that a row or an upload gives its recording; None without one."""
    if isinstance(source, Mapping):
        inner = source.get("audio", source)
        name = inner.get("path") if isinstance(inner, Mapping) else wrapped_name(inner)
    else:
        name = getattr(source, "filename", None) if _is_upload(source) else None
    return name if isinstance(name, str) else None


def _is_upload(source: Any) -> bool:
    return hasattr(source, "file") and inspect.iscoroutinefunction(getattr(source, "read", None))


def is_source(value: Any) -> bool:
    """Whether a value is one source rather than several.

    Example:
        >>> is_source("call.wav"), is_source((8000, np.zeros(4))), is_source(["call.wav"])
        (True, True, False)
    """
    if isinstance(value, tuple):
        return _rate_place(value) is not None
    plain = isinstance(value, str | bytes | bytearray | memoryview | Mapping)
    return (
        plain
        or is_array(value)
        or any(hasattr(value, name) for name in ("__fspath__", "read", *_WRAPPERS))
    )


_WRAPPERS = ("get_all_samples", "get_array_of_samples")


def _from_row(row: Mapping[str, Any]) -> Unwrapped:
    if "audio" in row:
        return unwrap(row["audio"])
    name = row.get("path")
    if row.get("array") is not None:
        return Unwrapped(_as_array(row["array"]), row.get("sampling_rate"))
    if row.get("bytes") is not None:
        return Unwrapped(row["bytes"])
    if name is not None:
        return Unwrapped(name)
    raise TypeError(
        f"source is a dictionary with the keys {', '.join(map(str, row)) or '(none)'}; it needs "
        '"array" and "sampling_rate", or "bytes" or "path"'
    )


def _as_array(values: Any) -> Any:
    """A list, as rows of Arrow tables hold it, as an array."""
    return values if is_array(values) else np.asarray(values, np.float32)


def _from_pair(pair: tuple[Any, ...]) -> Unwrapped:
    place = _rate_place(pair)
    if place is None:
        raise TypeError(
            f"source is a tuple of {len(pair)}; a pair of a sampling rate and an array is allowed"
        )
    return Unwrapped(pair[1 - place], int(pair[place]))


def _rate_place(pair: tuple[Any, ...]) -> int | None:
    """Which of a pair is the rate, if the other is an array; None if neither."""
    if len(pair) != 2:
        return None
    for place in (0, 1):
        rate = pair[place]
        is_whole = isinstance(rate, int | np.integer) and not isinstance(rate, bool)
        if is_whole and is_array(pair[1 - place]):
            return place
    return None


def _from_segment(segment: Any) -> Unwrapped:
    """An AudioSegment, whose samples are interleaved integers of 1, 2 or 4 bytes."""
    values = np.array(segment.get_array_of_samples())
    return Unwrapped(
        values.astype(f"i{segment.sample_width}").reshape(-1, segment.channels),
        int(segment.frame_rate),
    )
