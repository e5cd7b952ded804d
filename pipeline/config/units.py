"""Sizes as people write them: a number of bytes, or one with KiB, MiB, GiB or TiB.

A rate is a size too: bytes a second.
"""

import re
from decimal import Decimal

UNITS = {"": 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
PATTERN = r"^-?\d+(\.\d+)? ?(B|KiB|MiB|GiB|TiB)?$"
"""What `parse_bytes` takes as text, as a regular expression."""

_SIZE = re.compile(r"(?P<number>-?\d+(\.\d+)?) ?(?P<unit>[A-Za-z/]*)", re.ASCII)


def parse_bytes(value: object) -> int:
    """The number of bytes that `value`, an int or a text such as "64MiB", stands for.

    ValueError for another type, an unknown unit, or what is not a whole number of bytes.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return int(value)
    match = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None or match["unit"] not in UNITS:
        raise ValueError("expected bytes, as a whole number or with the unit KiB, MiB, GiB or TiB")
    number = Decimal(match["number"]) * UNITS[match["unit"]]
    if number != int(number):
        raise ValueError("expected a whole number of bytes")
    return int(number)


def format_bytes(count: float) -> str:
    """`count` bytes in the largest unit that leaves 1 or more, with one decimal where needed."""
    unit = next((u for u in ("TiB", "GiB", "MiB", "KiB") if abs(count) >= UNITS[u]), "B")
    return f"{count / UNITS[unit]:.1f}".removesuffix(".0") + unit


def dump_bytes(count: int) -> int | str:
    """`count` as a file says it: in the largest unit that divides it, else as a number."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if count and count % UNITS[unit] == 0:
            return f"{count // UNITS[unit]}{unit}"
    return count
