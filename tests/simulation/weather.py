"""What the network between the two machines does to what travels on it."""

from dataclasses import dataclass
from random import Random

from tests.simulation.clock import MS, US


@dataclass(frozen=True)
class Weather:
    """Delays in ns, and how likely each misfortune is for a message."""

    delay_ns: int = 100 * US
    jitter_ns: int = 300 * US
    lost: float = 0.0
    doubled: float = 0.0
    damaged: float = 0.0
    stalled: float = 0.0
    stall_ns: int = 300 * MS

    def delay(self, dice: Random) -> int:
        """How long a message is on its way."""
        delay_ns = self.delay_ns + int(dice.random() * self.jitter_ns)
        if self.stalled and dice.random() < self.stalled:
            delay_ns += int(dice.random() * self.stall_ns)
        return delay_ns

    def copies(self, dice: Random) -> int:
        """How often a message arrives."""
        fate = dice.random()
        if fate < self.lost:
            return 0
        return 2 if fate < self.lost + self.doubled else 1

    def touch(self, dice: Random, parts: list[bytes]) -> list[bytes]:
        """The message as it arrives: a bit may have flipped on the way."""
        if not self.damaged or dice.random() >= self.damaged:
            return parts
        number = dice.randrange(len(parts))
        damaged = bytearray(parts[number])
        if damaged:
            damaged[dice.randrange(len(damaged))] ^= 1 << dice.randrange(8)
        return [*parts[:number], bytes(damaged), *parts[number + 1 :]]


LOCAL = Weather(delay_ns=2 * US, jitter_ns=20 * US)
"""Between the processes of one machine nothing is lost."""
