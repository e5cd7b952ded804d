"""The moves of a plan: one for each guest that is to go somewhere else. Pure."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from pipeline.batch.plan import Guest, Hooks, Plan

MIB = 1 << 20
UNKNOWN_MEMORY = 1024 * MIB
"""For the forecast of a guest of which nobody says how large it is."""


@dataclass(frozen=True)
class Move:
    """One guest from `source` to one of `candidates`; memory in bytes, dirty rate in bytes/s, as is
    the most that its own configuration lets it take on the wire; 0 for any.

    `settings` is its configuration but for what differs by attempt; `start` the command that makes
    what waits at the destination, `where` the keys in the plan's file, for messages.
    """

    name: str
    source: str
    candidates: tuple[str, ...]
    memory: int = UNKNOWN_MEMORY
    dirty_rate: int = 0
    codec: str = "zlib"
    max_bandwidth: int = 0
    priority: int = 0
    settings: dict[str, Any] = field(default_factory=dict)
    start: tuple[str, ...] | None = None
    hooks: Hooks = field(default_factory=Hooks)
    where: tuple[object, ...] = ()


def bandwidth(move: Move, share: int | None) -> int | None:
    """Bytes/s on the wire that it may take of its `share` of the link; None: nothing limits it."""
    return min(filter(None, (share, move.max_bandwidth)), default=None)


@dataclass(frozen=True)
class Wanted:
    """A guest of the plan before its configuration is looked at, and where it stands there."""

    guest: Guest
    source: str
    candidates: tuple[str, ...]
    where: tuple[object, ...]


def wanted(plan: Plan) -> Iterator[Wanted]:
    """What `migrations` and `drain` ask for; one who is drained goes to any host that is not."""
    for number, one in enumerate(plan.migrations):
        yield Wanted(one, one.source, one.destination, ("migrations", number))
    others = tuple(name for name in plan.hosts if name not in plan.drain)
    listed = {one.name for one in plan.migrations if one.source in plan.drain}
    for host in plan.drain:
        for number, guest in enumerate(plan.hosts[host].guests):
            if guest.name not in listed:
                yield Wanted(guest, host, others, ("hosts", host, "guests", number))


_WORD = re.compile(r"\{[A-Za-z_-]+\}")


def unknown_words(value: Any) -> Iterator[str]:  # noqa: ANN401 (of any shape)
    """What stands in braces in texts that were `filled`, and means nothing."""
    if isinstance(value, str):
        yield from _WORD.findall(value)
    elif isinstance(value, dict | list | tuple):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from unknown_words(inner)


def filled(value: Any, words: dict[str, str]) -> Any:  # noqa: ANN401 (of any shape)
    """`value` with {name}, {source}, {destination} and {attempt} in its texts replaced."""
    if isinstance(value, str):
        for word, text in words.items():
            value = value.replace(f"{{{word}}}", text)
        return value
    if isinstance(value, dict):
        return {key: filled(inner, words) for key, inner in value.items()}
    return [filled(inner, words) for inner in value] if isinstance(value, list | tuple) else value
