"""Damage to bytes, to JSON and to folders, determined by a random generator alone."""

import json
import math
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 7, 10**6, 10**9, 2**63, 10**400, 0.0, -0.5, 1e-320, 1e300,
    math.nan, math.inf, -math.inf, "", "x", "\x1b[31m", "‮", "../x", "=1+1", "a" * 10_000,
    [], [[]], {}, {"a": {}}, [0] * 1_000, "kernels-community/flash-attn2",
)  # fmt: skip
"""What takes the place of a value in a JSON file."""
MAX_FLIPS = 8


def flip_bits(data: bytes, dice: random.Random) -> bytes:
    """Change up to eight bits, most of them near the start, where the headers are."""
    changed = bytearray(data)
    for _ in range(dice.randint(1, MAX_FLIPS)):
        near = dice.random() < 0.5
        place = dice.randrange(min(len(changed), 256) if near else len(changed))
        changed[place] ^= 1 << dice.randrange(8)
    return bytes(changed)


def cut(data: bytes, dice: random.Random) -> bytes:
    """Keep the beginning only."""
    return data[: dice.randrange(len(data))]


def overwrite(data: bytes, dice: random.Random) -> bytes:
    """Replace a stretch by zeros, ones or noise of the same length."""
    start = dice.randrange(len(data))
    length = min(len(data) - start, dice.choice((1, 2, 4, 8, 64, 4_096)))
    filled = dice.choice((bytes(length), b"\xff" * length, dice.randbytes(length)))
    return data[:start] + filled + data[start + length :]


def splice(data: bytes, dice: random.Random) -> bytes:
    """Repeat or remove a stretch."""
    start = dice.randrange(len(data))
    end = start + dice.randint(1, 4_096)
    return data[:end] + data[start:] if dice.random() < 0.5 else data[:start] + data[end:]


BYTES: tuple[Callable[[bytes, random.Random], bytes], ...] = (flip_bits, cut, overwrite, splice)


def mutate_bytes(data: bytes, dice: random.Random) -> bytes:
    """One kind of damage to the bytes of a file."""
    return dice.choice(BYTES)(data, dice) if data else dice.randbytes(64)


def mutate_json(data: bytes, dice: random.Random) -> bytes:
    """Another value, another name, one value less, or a deep nest in a JSON file."""
    whole = json.loads(data)
    places = list(_walk(whole))
    if not places:
        return mutate_bytes(data, dice)
    for _ in range(dice.choice((1, 1, 1, 2, 5))):
        holder, key = dice.choice(places)
        if isinstance(holder, dict) and key not in holder:
            continue
        kind = dice.random()
        if kind < 0.7:
            holder[key] = _value(holder[key], dice)
        elif isinstance(holder, dict) and kind < 0.85:
            del holder[key]
        elif isinstance(holder, dict):
            holder[dice.choice(("x", key.upper(), f"{key} "))] = holder[key]
        else:
            holder[key] = dice.choice(VALUES)
    text = json.dumps(whole)
    if dice.random() < 0.05:
        text = text.replace("1", "[" * 5_000 + "]" * 5_000, 1)
    return text.encode()


def mutate_folder(folder: Path, dice: random.Random) -> str:
    """Damage one file of a folder and keep its times; what was done."""
    file = dice.choice(sorted(item for item in folder.iterdir() if item.is_file()))
    data, stated = file.read_bytes(), file.stat()
    kind = dice.random()
    if kind < 0.05:
        file.unlink()
        return f"{file.name} removed"
    if kind < 0.08:
        other = dice.choice(sorted(folder.iterdir()))
        file.write_bytes(other.read_bytes())
        return f"{file.name} a copy of {other.name}"
    is_json = file.suffix == ".json" and dice.random() < 0.85
    file.write_bytes((mutate_json if is_json else mutate_bytes)(data, dice))
    os.utime(file, ns=(stated.st_atime_ns, stated.st_mtime_ns))
    return f"{file.name} {'values' if is_json else 'bytes'}"


def _walk(value: Any) -> Any:
    """Every place in a JSON value, as its holder and its key."""
    pending = [value]
    while pending:
        holder = pending.pop()
        if isinstance(holder, dict | list):
            keys = list(holder) if isinstance(holder, dict) else range(len(holder))
            for key in keys:
                yield holder, key
                pending.append(holder[key])


def _value(before: Any, dice: random.Random) -> Any:
    if isinstance(before, int | float) and not isinstance(before, bool) and dice.random() < 0.4:
        return dice.choice((before + 1, before - 1, before * 2, -before, before * 1000, 0.5))
    return dice.choice(VALUES)
