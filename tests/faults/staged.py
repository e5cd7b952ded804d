"""A pageferry command that stands still at a named point until the test lets it go on:

    python -m tests.faults.staged POINT REACHED GO ARGUMENTS...

REACHED and GO are descriptors of pipes: a byte is written to the one when the point is reached,
and waited for at the other. The point is a call of the command's own code; all else is real.
"""

import importlib
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pipeline.__main__ import main


@dataclass(frozen=True)
class Point:
    """Before or after a call of `method` of a class, the first time that `when(self)` holds."""

    end: str
    module: str
    method: str
    after: bool = False
    when: Callable[[Any], bool] = lambda _: True


def _in_round(number: int) -> Callable[[Any], bool]:
    return lambda dispatcher: dispatcher.round_no == number and dispatcher.applied > 0


_SOURCE, _THERE = "pipeline.source", "protocol.commit"
POINTS = {
    "setup": Point("source", f"{_SOURCE}.dispatcher", "Dispatcher.open", True),
    "first round": Point(
        "source", f"{_SOURCE}.dispatcher", "Dispatcher.heard_applied", True, _in_round(1)
    ),
    "later round": Point(
        "source", f"{_SOURCE}.dispatcher", "Dispatcher.heard_applied", True, _in_round(2)
    ),
    "last round": Point("source", f"{_SOURCE}.switch_over", "SwitchOver.send_last"),
    "verification": Point("source", f"{_SOURCE}.switch_over", "SwitchOver.verify"),
    "device state": Point("source", f"{_SOURCE}.switch_over", "SwitchOver.load"),
    "ready": Point("source", f"{_SOURCE}.custody", "Custody.intend"),
    "intent kept": Point("source", f"{_SOURCE}.custody", "Custody.intend", True),
    "commit heard": Point("destination", _THERE, "DestinationCommit.heard_commit"),
    "committed kept": Point("destination", _THERE, "DestinationCommit.heard_commit", True),
    "guest started": Point("destination", _THERE, "DestinationCommit.started"),
    "started kept": Point("destination", _THERE, "DestinationCommit.started", True),
    "answer heard": Point("source", f"{_SOURCE}.custody", "Custody.given"),
    "given kept": Point("source", f"{_SOURCE}.custody", "Custody.given", True),
}
"""In the order in which a migration comes to them."""


def stand_still_at(point: Point, reached: int, go: int) -> None:
    """Have the next call of the point say so, and wait."""
    owner, _, name = point.method.partition(".")
    cls = getattr(importlib.import_module(point.module), owner)
    method = getattr(cls, name)
    passed: list[bool] = []

    def pause(instance: object) -> None:
        if not passed and point.when(instance):
            passed.append(True)
            os.write(reached, b".")
            os.read(go, 1)

    def paused(self: object, *arguments: object, **named: object) -> object:
        if not point.after:
            pause(self)
        answer = method(self, *arguments, **named)
        if point.after:
            pause(self)
        return answer

    setattr(cls, name, paused)


if __name__ == "__main__":
    stand_still_at(POINTS[sys.argv[1]], int(sys.argv[2]), int(sys.argv[3]))
    sys.argv[1:] = sys.argv[4:]
    main()
