"""The one reader and the one writer of JSON: files that others wrote, and what commands print.

Reading refuses what is not UTF-8, not JSON, too large, nested too deeply, or of another kind
than expected. Writing never gives NaN or infinity, which are no JSON: they become null.
"""

import itertools
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

MAX_BYTES = 16 * 2**20
MAX_DEPTH = 64

Kind = TypeVar("Kind")


def parse_json(content: bytes | str, kind: type[Kind], *, max_bytes: int = MAX_BYTES) -> Kind:
    """The value of a JSON document.

    Args:
        content: The document; bytes are UTF-8.
        kind: What the value must be, such as `dict`.
        max_bytes: Longest document in bytes, or in characters of text.

    Raises:
        ValueError: If it is anything else; the message says what is wrong.

    Example:
        >>> parse_json(b'{"seed": 3}', dict)
        {'seed': 3}
        >>> parse_json("[" * 100_000, list)
        Traceback (most recent call last):
        ValueError: it is nested more than 64 levels deep
    """
    if len(content) > max_bytes:
        raise ValueError(f"it is {len(content):,} bytes long, and up to {max_bytes:,} are read")
    try:
        text = content if isinstance(content, str) else content.decode("utf-8-sig")
        value = json.loads(text)
    except RecursionError:
        raise ValueError(f"it is nested more than {MAX_DEPTH} levels deep") from None
    except ValueError as error:
        raise ValueError(f"it is not valid JSON: {error}") from error
    _check_depth(value)
    if not isinstance(value, kind):
        raise ValueError(f"it holds a {type(value).__name__}, not a {kind.__name__}")
    return value


def read_json(file: Path, kind: type[Kind], *, max_bytes: int = MAX_BYTES) -> Kind:
    """The value of a JSON file, as in `parse_json`; never reads more than `max_bytes`.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If it is damaged.
    """
    with file.open("rb") as opened:
        return parse_json(opened.read(max_bytes + 1), kind, max_bytes=max_bytes)


def format_json(value: object, *, indent: int | None = None, ensure_ascii: bool = True) -> str:
    """A value as JSON; numbers that are not finite become null, characters beyond ASCII escapes.

    Example:
        >>> format_json({"recall": float("nan"), "label": "zornig"})
        '{"recall": null, "label": "zornig"}'
    """
    return json.dumps(_finite(value), indent=indent, ensure_ascii=ensure_ascii, allow_nan=False)


def _check_depth(value: object) -> None:
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [item for item in level if isinstance(item, dict | list)]
        if not level:
            return
        inner = (item.values() if isinstance(item, dict) else item for item in level)
        level = list(itertools.chain.from_iterable(inner))
    raise ValueError(f"it is nested more than {MAX_DEPTH} levels deep")


def _finite(value: object) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
