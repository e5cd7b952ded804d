"""What goes wrong in a migration: drawn from the seed, set off by what happens in it."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from random import Random

from tests.simulation.aftermath import Operator
from tests.simulation.clock import MS, SECOND, Process
from tests.simulation.commands import DestinationCommand, SourceCommand
from tests.simulation.network import Kind
from tests.simulation.weather import Weather
from tests.simulation.world import World

MOMENTS = {
    "Hello": 1, "Welcome": 1, "RoundStart": 6, "job": 20, "frame": 20, "landed": 20, "Applied": 10,
    "stop": 1, "Verify": 1, "Verified": 1, "Devices": 1, "destination-ready": 1, "Ready": 1,
    "source-intent": 1, "Commit": 1, "destination-committed": 1, "destination-runs": 1,
    "destination-started": 1, "Started": 1, "source-given": 1, "Settled": 1,
}  # fmt: skip
"""What sets a fault off, and up to which time that it happens."""

STORMS = 0.03
"""How often most frames are damaged, so that one is redone to the last time."""
WORKERS = ("compress worker", "compress worker", "decompress worker", "decompress worker")
OTHERS = ("source command", "destination command", "source guest", "destination guest")
MENDED = frozenset({"a worker dies", "a worker hangs", "data is cut", "control is cut"})
SETUP = frozenset({"Hello", "Welcome"})
"""After one of these alone, once setup is over, a migration completes all the same."""


@dataclass(frozen=True)
class Fault:
    """The `number`th time that `moment` comes, and `delay_ns` later, something happens."""

    moment: str
    number: int
    delay_ns: int
    name: str
    do: Callable[[], object]


class Faults:
    """The faults of one migration; `names` tells what was planned, `met` what has happened."""

    def __init__(
        self, world: World, source: SourceCommand, destination: DestinationCommand
    ) -> None:
        self._world = world
        self._dice = world.dice
        self._source = source
        self._destination = destination
        self.weather = _weather(self._dice)
        world.network.weather["control"] = world.network.weather["data"] = self.weather
        if self._dice.random() < STORMS:
            self.weather = world.network.weather["data"] = replace(self.weather, damaged=0.6)
        self._waiting = [self._drawn() for _ in range(self._dice.choice((0, 1, 1, 1, 2, 2, 3)))]
        self.names = [fault.name for fault in self._waiting]
        world.story.listener = self._heard

    @property
    def must_complete(self) -> bool:
        """Whether nothing goes wrong that a migration may fail of."""
        fair = not (self.weather.lost or self.weather.damaged or self.weather.stalled)
        return fair and len(self._waiting) < 2 and all(map(_is_mended, self._waiting))

    def _heard(self, kind: str, number: int) -> None:
        for fault in self._waiting:
            if (fault.moment, fault.number) == (kind, number):
                self._world.clock.after(fault.delay_ns, fault.do)

    def _drawn(self) -> Fault:
        moment, most = self._dice.choice(list(MOMENTS.items()))
        longest_ns = self._dice.choice((1, 10 * MS, 300 * MS))
        delay_ns = int(self._dice.random() * longest_ns)
        name, do = self._dice.choice(
            (self._death, self._death, self._hang, self._hang, self._cut, self._cut, self._quiet,
             self._cancel, self._closing)
        )()  # fmt: skip
        return Fault(moment, 1 + int(self._dice.random() * most), delay_ns, name, do)

    def _victim(self) -> tuple[str, str]:
        name = self._dice.choice(WORKERS + OTHERS)
        return name, "a worker" if "worker" in name else name

    def _with_one(self, name: str, kind: str, do: Callable[[Process], None]) -> None:
        found = self._world.processes.named(name)
        if found:
            process = self._dice.choice(found)
            self._world.story.tell(kind, "FAULT: {} ({})", process.name, kind)
            do(process)

    def _death(self) -> tuple[str, Callable[[], object]]:
        name, who = self._victim()
        return f"{who} dies", lambda: self._with_one(name, "death", Process.kill)

    def _hang(self) -> tuple[str, Callable[[], object]]:
        name, who = self._victim()
        for_ns = int(self._dice.choice((0.3, 4, 12)) * self._dice.random() * SECOND)
        return f"{who} hangs", lambda: self._with_one(name, "hang", partial(self._freeze, for_ns))

    def _freeze(self, for_ns: int, process: Process) -> None:
        process.hang()
        self._world.clock.after(for_ns, process.come_back)

    def _kind(self) -> Kind:
        return "control" if self._dice.random() < 0.4 else "data"

    def _cut(self) -> tuple[str, Callable[[], object]]:
        kind = self._kind()
        return f"{kind} is cut", lambda: self._cut_wires(kind)

    def _cut_wires(self, kind: Kind) -> None:
        network = self._world.network
        wires = [wire for wire in network.wires if wire.kind == kind and wire.router is not None]
        for wire in wires[: 1 + int(self._dice.random() * 2)]:
            self._world.story.tell("cut", "FAULT: a {} connection is cut", kind)
            network.cut(wire)

    def _quiet(self) -> tuple[str, Callable[[], object]]:
        kind, for_ns = self._kind(), int(self._dice.choice((1, 8)) * self._dice.random() * SECOND)
        return f"{kind} is quiet", lambda: self._silence(kind, for_ns)

    def _silence(self, kind: Kind, for_ns: int) -> None:
        self._world.story.tell("quiet", "FAULT: {} is quiet for {} ms", kind, for_ns // MS)
        self._world.network.quiet(kind, for_ns)

    def _cancel(self) -> tuple[str, Callable[[], object]]:
        return ("cancel", self._cancel_source if self._dice.random() < 0.6 else self._cancel_there)

    def _cancel_source(self) -> None:
        if self._source.coordinator is not None:
            self._world.story.tell("cancel", "FAULT: cancelled at the source")
            self._source.coordinator.cancel.set()

    def _cancel_there(self) -> None:
        if self._destination.receiver is not None:
            self._world.story.tell("cancel", "FAULT: cancelled at the destination")
            self._destination.receiver.cancel.set()

    def _closing(self) -> tuple[str, Callable[[], object]]:
        return "the record is closed", lambda: self._world.processes.start("operator", self._close)

    def _close(self) -> None:
        self._world.story.tell("closing", "FAULT: the destination's record is closed by hand")
        Operator(self._world).close_early()


def _is_mended(fault: Fault) -> bool:
    return fault.name in MENDED and fault.moment not in SETUP


def _weather(dice: Random) -> Weather:
    """Fair in most migrations; else one or two kinds of bad."""
    fair = dice.random() < 0.6

    def some(most: float) -> float:
        return 0.0 if fair or dice.random() < 0.5 else dice.random() * most

    return Weather(
        delay_ns=int(dice.choice((0.2, 2, 6)) * MS),
        jitter_ns=int(dice.choice((1, 8)) * MS),
        lost=some(0.04),
        doubled=some(0.1),
        damaged=some(0.05),
        stalled=some(0.1),
    )
