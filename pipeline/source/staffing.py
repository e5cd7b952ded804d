"""How many compress workers `compress-threads: auto` wants. Pure: time is an argument.

A few to begin with, twice as many while all of them are busy, one less while they are not: more
would only take memory and cores from the guests beside.
"""

from pipeline.source.codec_choice import Totals

FIRST = 4
LOOK_NS = 500_000_000
SATURATED = 0.85
"""Workers that wait for nothing else were seen to be busy for 0.9 of the time."""
SPARE = 0.5
"""What the rest would be busy for, so that one goes: far from where one more is wanted."""


class Staffing:
    """`wanted` workers, of `most`."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.wanted = min(FIRST, most)
        self._began_ns = 0
        self._before_ns = 0

    def rest(self) -> None:
        """Nothing waits to be sent: who has nothing to do now says nothing."""
        self._began_ns = 0

    def tick(self, now_ns: int, totals: Totals) -> None:
        """Look how busy they were, now and then."""
        elapsed_ns = now_ns - self._began_ns
        if self._began_ns and elapsed_ns < LOOK_NS:
            return
        if self._began_ns:
            self._decide((totals.busy.compress - self._before_ns) / elapsed_ns, totals.workers)
        self._began_ns, self._before_ns = now_ns, totals.busy.compress

    def _decide(self, busy: float, workers: int) -> None:
        """`busy`: how many of the `workers` were, on average."""
        if busy > SATURATED * workers:
            self.wanted = min(2 * workers, self._most)
        elif workers > 1 and busy < SPARE * (workers - 1):
            self.wanted = workers - 1
