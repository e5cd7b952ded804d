"""What an experiment does, one migration after the other, and what is known of it. Pure.

A *setting* is a point of the space; tried with a guest over a link, so often as it is repeated. A
*round* tries each once, in an order of its own, so that what the machine does meanwhile meets all.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from random import Random
from typing import Any

from msgspec import Struct, field

from pipeline.laboratory.experiment import Settings


class Trial(Struct, frozen=True, rename="kebab"):
    """One migration: `repetition` from 0 on; below 0 it warms up."""

    settings: dict[str, Any]
    guest: int
    link: int
    repetition: int

    @property
    def key(self) -> str:
        """The same for the same one."""
        known = [sorted(self.settings.items()), self.guest, self.link, self.repetition]
        return json.dumps(known)


class Row(Struct, frozen=True, rename="kebab", kw_only=True):
    """A trial that was made: `measures` by name, empty where it failed; all of its result;
    `shaped_by` what made the link slow."""

    trial: Trial
    measures: dict[str, float] = field(default_factory=dict)
    error: str | None = None
    shaped_by: str | None = None
    began: str = ""
    result: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Places:
    """How many guests and links there are: each setting is tried with all."""

    guests: int
    links: int

    def trials(self, settings: Settings, repetition: int) -> Iterator[Trial]:
        """One setting, everywhere, once."""
        for guest in range(self.guests):
            for link in range(self.links):
                yield Trial(settings, guest, link, repetition)


def in_rounds(
    points: Iterable[Settings], places: Places, repeat: int, warm_up: int, seed: int
) -> list[Trial]:
    """All trials of those points: first what warms up, then round after round, each shuffled."""
    all_points, dice, planned = list(points), Random(seed), list[Trial]()
    for repetition in range(-warm_up, 0):
        planned += places.trials(all_points[0], repetition)
    for repetition in range(repeat):
        of_round = [one for point in all_points for one in places.trials(point, repetition)]
        dice.shuffle(of_round)
        planned += of_round
    return planned
