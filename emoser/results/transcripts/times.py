"""Times of turns as other programs write them."""

import math
import re
from typing import Any

from emoser.errors import TurnsError

CLOCK = re.compile(r"(?:(\d{1,4}):)?([0-5]?\d):([0-5]?\d(?:[.,]\d+)?)$")


def parse_seconds(value: Any, place: str) -> float:
    """A number of seconds, or a time as h:mm:ss.mmm.

    Args:
        value: The number or the text.
        place: Where it stands, for the message.

    Raises:
        TurnsError: If it is neither.

    Example:
        >>> parse_seconds("1:02:03.5", "line 1"), parse_seconds(" 2.25 ", "line 2")
        (3723.5, 2.25)
    """
    text = str(value).strip()
    if found := CLOCK.match(text):
        hours, minutes, seconds = found.groups()
        return int(hours or 0) * 3600.0 + int(minutes) * 60.0 + float(seconds.replace(",", "."))
    try:
        if isinstance(value, bool):
            raise ValueError
        seconds = float(value)
        if not math.isfinite(seconds):
            raise ValueError
        return seconds
    except (TypeError, ValueError, OverflowError) as error:
        raise TurnsError(
            f"{place} has the time {text[:40]!r}; write seconds or h:mm:ss.mmm"
        ) from error
