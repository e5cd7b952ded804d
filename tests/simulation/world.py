"""All that one simulated migration consists of: two machines, the network, the guests."""

from random import Random

from tests.simulation.clock import SECOND, Clock
from tests.simulation.disk import Disk
from tests.simulation.guest import Guest
from tests.simulation.invariants import Truth
from tests.simulation.machine import Processes
from tests.simulation.network import Network
from tests.simulation.story import Story

LIMIT_NS = 300 * SECOND
"""By then a migration has ended, whatever has happened."""


class World:
    """What the seed decides; `dice` are thrown for everything that the system leaves open."""

    def __init__(self, dice: Random, pages: int) -> None:
        self.dice = dice
        self.clock = Clock(LIMIT_NS)
        self.story = Story(self.clock)
        self.processes = Processes(self.clock, self.story, dice)
        self.network = Network(self.clock, dice, self.story)
        self.disk = Disk(self.processes, self.story)
        self.source = Guest(self.processes, self.story, "source", pages, self._runs)
        self.destination = Guest(self.processes, self.story, "destination", pages, self._runs)
        self.truth = Truth(self.story, self.disk, self.source, self.destination)

    def _runs(self, guest: Guest) -> None:
        self.truth.runs(guest)

    def close(self) -> None:
        """End all processes, so that what they have open is closed."""
        for process in self.processes.named(""):
            process.kill()
        self.clock.run(self.processes.all_unwound)
        for guest in (self.source, self.destination):
            guest.memory.close()
