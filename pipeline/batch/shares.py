"""A budget of bandwidth for each host's link and direction, split over what runs there. Pure."""

from collections import defaultdict
from collections.abc import Mapping


class Shares:
    """Who runs between which hosts, and what each may take; `budgets` in bytes/s, 0: no limit."""

    def __init__(self, budgets: Mapping[str, int]) -> None:
        self._budgets = budgets
        self.leaving: defaultdict[str, set[str]] = defaultdict(set)
        self.coming: defaultdict[str, set[str]] = defaultdict(set)
        self._ends: dict[str, tuple[str, str]] = {}

    def add(self, name: str, source: str, destination: str) -> None:
        """A migration runs from now on."""
        self._ends[name] = source, destination
        self.leaving[source].add(name)
        self.coming[destination].add(name)

    def remove(self, name: str) -> None:
        """It has ended: its share goes to the others."""
        source, destination = self._ends.pop(name)
        self.leaving[source].discard(name)
        self.coming[destination].discard(name)

    def of(self, name: str) -> int | None:
        """Bytes/s: an equal part of what leaves the one host, or comes to the other, whichever is
        smaller; None where neither has a limit."""
        source, destination = self._ends[name]
        parts = [
            self._budgets[host] // len(running[host])
            for host, running in ((source, self.leaving), (destination, self.coming))
            if self._budgets[host]
        ]
        return max(1, min(parts)) if parts else None

    def beside(self, source: str, destination: str) -> set[str]:
        """Who shares one of the two links."""
        return self.leaving[source] | self.coming[destination]
