"""Many simulated migrations, one seed each, on all cores; what became of them."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from multiprocessing import get_context

from tests.simulation.migration import Migration, Outcome
from tests.simulation.planted import planted
from tests.simulation.stage import Stage, staged
from tests.simulation.watching import watched

CHUNK = 100
FAULTS = ("death", "hang", "cut", "quiet", "cancel", "closing", "lost", "doubled", "redone")


@dataclass
class Tally:
    """Sums over many seeds; `broken` are the outcomes in which an invariant did not hold."""

    ends: Counter[str] = field(default_factory=Counter)
    events: Counter[str] = field(default_factory=Counter)
    faulty: int = 0
    broken: list[Outcome] = field(default_factory=list)

    def add(self, outcome: Outcome) -> None:
        """Count one."""
        self.ends[outcome.end] += 1
        self.events.update(outcome.counts)
        self.faulty += any(outcome.counts[fault] for fault in FAULTS)
        if outcome.broken:
            self.broken.append(outcome)

    def __str__(self) -> str:
        ends = ", ".join(f"{end}: {count}" for end, count in sorted(self.ends.items()))
        events = ", ".join(f"{name}: {self.events[name]}" for name in FAULTS)
        return (
            f"{self.ends.total()} migrations, {self.faulty} of them met faults\n"
            f"ends: {ends}\nevents: {events}, rounds: {self.events['RoundStart']},"
            f" frames: {self.events['landed']}"
        )


@contextmanager
def stage_with(plant: str | None) -> Iterator[Stage]:
    """A stage on which the code has the mistake `plant`, if any, and everything is watched."""
    with staged() as stage, planted(plant), watched(stage):
        yield stage


def play(
    seeds: Iterable[int], plant: str | None = None, *, told: bool = False
) -> Iterator[Outcome]:
    """Play the migrations of `seeds`, one after the other, in this process."""
    with stage_with(plant) as stage:
        for seed in seeds:
            yield Migration(stage, seed).play(told=told)


def first_broken(seeds: Iterable[int], plant: str | None = None) -> Outcome | None:
    """The first outcome in which an invariant does not hold."""
    return next((outcome for outcome in play(seeds, plant) if outcome.broken), None)


def _chunk(plant: str | None, first: int, end: int) -> list[Outcome]:
    return list(play(range(first, min(end, first + CHUNK)), plant))


def play_all(first: int, count: int, plant: str | None = None) -> Iterator[Outcome]:
    """Play the migrations of `count` seeds on all cores."""
    work = partial(_chunk, plant, end=first + count)
    with get_context("fork").Pool(len(os.sched_getaffinity(0))) as pool:
        for outcomes in pool.imap(work, range(first, first + count, CHUNK)):
            yield from outcomes


def tally(outcomes: Iterable[Outcome], most: int | None = None) -> Tally:
    """Count `outcomes`."""
    counted = Tally()
    for outcome in islice(outcomes, most):
        counted.add(outcome)
    return counted
