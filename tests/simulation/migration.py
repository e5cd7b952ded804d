"""One simulated migration from its seed to its end, and what has to be true then."""

from collections import Counter
from dataclasses import dataclass
from random import Random

from protocol.commit import Step
from protocol.status import Status
from tests.simulation.aftermath import Operator
from tests.simulation.clock import MS, SECOND, Stuck
from tests.simulation.commands import DestinationCommand, Settings, SourceCommand
from tests.simulation.faults import Faults
from tests.simulation.stage import Stage
from tests.simulation.world import World

QUIET_NS = 2 * SECOND
"""After this the guest writes little, so that its migration converges on any link."""
CALM_NS = 20 * SECOND
"""After this whatever hung has come back, and whoever lost its parent has ended."""


@dataclass(frozen=True)
class Outcome:
    """How the migration of a seed ended; `broken` says which invariants did not hold."""

    seed: int
    end: str
    counts: Counter[str]
    broken: list[str]
    lines: list[str]


class Migration:
    """The world of one seed."""

    def __init__(self, stage: Stage, seed: int) -> None:
        dice = Random(seed)
        self._seed = seed
        self._world = stage.world = World(dice, dice.randint(8, 24))
        self._world.destination.grow_quiet()
        self._world.source.pause_ns = dice.choice((3, 10, 30)) * MS
        self._world.clock.after(QUIET_NS, self._world.source.grow_quiet)
        self._world.source.fill(dice.randint(1, self._world.source.memory.pages))
        settings = Settings.drawn(dice)
        self._destination = DestinationCommand(self._world, settings)
        self._source = SourceCommand(self._world, settings)
        self._source.process.at_end += [self._nobody_comes, self._world.source.grow_quiet]
        self._faults = Faults(self._world, self._source, self._destination)
        self._operator = Operator(self._world)
        self._world.story.tell("seed", "{}, faults: {}", settings, self._faults.names)

    def _nobody_comes(self) -> None:
        """The source has ended; where it was not heard, its destination is told so by hand."""
        self._world.clock.after(CALM_NS, self._destination.give_up)

    def play(self, *, told: bool = False) -> Outcome:
        """To the end, and beyond; with its story where it is to be `told`, or something broke."""
        world = self._world
        try:
            world.clock.run(lambda: self._source.is_over and self._destination.is_over)
            self._check_result()
            put_right = world.processes.start("operator", self._operator.put_right)
            world.clock.run(lambda: put_right.ended)
            calm_ns = world.clock.now_ns + CALM_NS
            world.clock.after(CALM_NS, lambda: None)
            world.clock.run(lambda: world.clock.now_ns >= calm_ns)
            self._check_end()
        except Stuck:
            world.truth.check(False, "it does not come to an end")
        try:
            return self._outcome(told=told)
        finally:
            world.close()

    def _outcome(self, *, told: bool) -> Outcome:
        story, truth = self._world.story, self._world.truth
        truth.broken.extend(self._world.processes.bugs)
        lines = story.lines() if truth.broken or told else []
        return Outcome(self._seed, self._end, story.counts, truth.broken, lines)

    @property
    def _end(self) -> str:
        if self._operator.resolved is not None:
            return f"unknown, then {self._operator.resolved}"
        if self._source.process.killed:
            return "source killed"
        return self._source.status.status

    def _check_result(self) -> None:
        """What the source's command says of its guest is true."""
        truth, coordinator = self._world.truth, self._source.coordinator
        if coordinator is None or self._source.process.killed:
            return
        guest, status, alive = (
            self._world.source,
            self._source.status.status,
            coordinator.custody.alive,
        )
        self._world.story.tell(
            "result", "the source: {}, {}, guest: {}", status, coordinator.error, alive
        )
        truth.check(status is Status.COMPLETED or not self._faults.must_complete, "not completed")
        truth.check(
            (status is Status.COMPLETED) == (alive == "destination"),
            "the source says {}, its guest is at {}", status, alive,
        )  # fmt: skip
        if alive in ("destination", "unknown"):
            truth.check(not guest.running, "given away, and runs at the source")
        if alive == "destination":
            truth.check(truth.starts == 1, "given away, and never started")
        if alive == "none":
            truth.check(guest.process.ended, "the guest is said to be dead, and lives")

    def _check_end(self) -> None:
        """Exactly one guest runs, if it lives, and nothing else does."""
        world, truth = self._world, self._world.truth
        if truth.starts:
            truth.check(not world.source.runs, "started there, and runs here")
        else:
            truth.check(
                world.source.runs or world.source.process.ended, "never started, and stands still"
            )
        for process in world.processes.named("worker"):
            truth.check(False, "{} is left behind", process.name)
        source = world.disk.last_step("source")
        truth.check(
            "source" not in world.disk.records, "the source's record is left behind: {}", source
        )
        truth.check(source is not Step.GIVEN or truth.starts == 1, "given, and never started")
