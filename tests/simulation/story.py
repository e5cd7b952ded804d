"""What happened in a simulated migration, in the order in which it happened."""

from collections import Counter
from collections.abc import Callable

from tests.simulation.clock import START_NS, Clock


class Story:
    """The events; each has a kind, by which it is counted and by which faults are set off."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._events: list[tuple[int, str, tuple[object, ...]]] = []
        self.counts: Counter[str] = Counter()
        self.listener: Callable[[str, int], None] = lambda kind, number: None

    def tell(self, kind: str, words: str, *details: object) -> None:
        """Something happened; `words` is completed with `details` when it is read."""
        self._events.append((self._clock.now_ns, words, details))
        self.counts[kind] += 1
        self.listener(kind, self.counts[kind])

    def lines(self) -> list[str]:
        """A line an event, with its time in ms."""
        return [
            f"{(at_ns - START_NS) / 1e6:11.3f} ms  {words.format(*details)}"
            for at_ns, words, details in self._events
        ]
