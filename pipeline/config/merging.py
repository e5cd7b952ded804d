"""One configuration over another, before it is known whether they are one. Pure."""

from collections.abc import Mapping
from typing import Any


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`above` over `below`: what is not named there, at any depth, stays."""
    made = dict(below)
    for key, value in above.items():
        inner = made.get(key)
        if isinstance(inner, Mapping) and isinstance(value, Mapping):
            made[key] = merged(inner, value)
        else:
            made[key] = value
    return made
