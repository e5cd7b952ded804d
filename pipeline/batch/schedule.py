"""Who may begin now: limits, room, order, retries. The dry run and the real one ask the same. Pure.

Each source has a queue. One that could not begin for want of a place at its destinations is parked
there, and looked at again when one of these has a place; so nobody is looked at for nothing.
"""

import heapq
from bisect import insort
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from pipeline.batch.moves import Move
from pipeline.batch.plan import Limits, Plan

LOOK = 16
"""So many of a source's queue are looked at while others run: one that is stuck does not hold up
all behind it."""
Key = tuple[int, float, int]


@dataclass(order=True, frozen=True)
class Queued:
    """A move in the queue of its source, by priority, then by order."""

    key: Key
    move: Move = field(compare=False)


@dataclass(frozen=True)
class Start:
    """A move that may begin now, and where it goes."""

    move: Move
    destination: str


class Scheduler:
    """Of one plan. `predicted` says how long a move takes (s); `most_on_link` how many a host's
    link carries, each way."""

    def __init__(
        self,
        plan: Plan,
        moves: Iterable[Move],
        predicted: Callable[[Move], float],
        most_on_link: Callable[[str], int],
    ) -> None:
        self.limits: Limits = plan.limits
        self.running: dict[str, Start] = {}
        self._order = plan.order
        self._predicted = predicted
        self._most_on_link = most_on_link
        self._room = {name: host.memory for name, host in plan.hosts.items()}
        self._leaving: Counter[str] = Counter()
        self._coming: Counter[str] = Counter()
        self._load: Counter[str] = Counter()
        self._queues: defaultdict[str, list[Queued]] = defaultdict(list)
        self._keys: dict[str, Key] = {}
        self._ready: list[tuple[Key, str]] = []
        self._parked: defaultdict[str, list[tuple[Key, str]]] = defaultdict(list)
        self._freed: set[str] = set()
        self._is_new = True
        self._failed_at: dict[str, str] = {}
        self._later: list[tuple[float, str, Move]] = []
        for number, move in enumerate(moves):
            self._keys[move.name] = self._key(move, number)
            self._enqueue(move)

    def _key(self, move: Move, number: int) -> Key:
        sign = {"longest-first": -1, "shortest-first": 1, "as-listed": 0}[self._order]
        return -move.priority, sign * self._predicted(move), number

    @property
    def waiting(self) -> list[Move]:
        """All that are to begin yet."""
        queued = [one.move for queue in self._queues.values() for one in queue]
        return [*queued, *(move for _, _, move in self._later)]

    @property
    def next_retry_s(self) -> float | None:
        """When the next one that failed is tried again."""
        return self._later[0][0] if self._later else None

    def due(self, now_s: float) -> list[Start]:
        """Those that begin now; they count as running from here on."""
        while self._later and self._later[0][0] <= now_s:
            self._enqueue(heapq.heappop(self._later)[2])
        starts: list[Start] = []
        while self._has_room and self._ready:
            key, source = heapq.heappop(self._ready)
            if self._queues[source] and self._queues[source][0].key != key:
                self._wake(source)  # its turn is another one's by now
            else:
                starts += self._from(source, LOOK)
        for host in list(self._freed):
            if self._has_room:
                self._freed.discard(host)
                starts += self._unparked(host)
        if not starts and not self.running and self._is_new:
            self._is_new = False  # nobody makes room for those at the heads of queues
            starts = next(filter(None, (self._from(one, None) for one in self._queues)), [])
        return starts

    @property
    def _has_room(self) -> bool:
        return len(self.running) < self.limits.cluster

    def ended(self, name: str, *, arrived: bool | None, again_s: float | None = None) -> None:
        """It is over; `again_s`: when it is to be tried again. Its place is given to others, and
        the room that it does not take: none where nobody knows whether it has `arrived`."""
        start = self.running.pop(name)
        source, destination = start.move.source, start.destination
        self._leaving[source] -= 1
        self._coming[destination] -= 1
        self._load[destination] -= round(self._predicted(start.move)) if arrived is False else 0
        if arrived is not None:
            self._give_room(source if arrived else destination, start.move.memory)
        self._freed |= {source, destination}
        if again_s is not None:
            self._failed_at[name] = destination
            heapq.heappush(self._later, (again_s, name, start.move))
        self._wake(source)

    def postpone(self, move: Move, again_s: float, failed_at: str) -> None:
        """It has failed before this scheduler was made, and is tried again at that time."""
        self.withdraw(move.name)
        self._failed_at[move.name] = failed_at
        heapq.heappush(self._later, (again_s, move.name, move))

    def adopt(self, move: Move, destination: str) -> None:
        """It runs already, since before this scheduler was made."""
        self.withdraw(move.name)
        self._begin(move, destination)

    def arrived_before(self, move: Move, destination: str) -> None:
        """It moved before this scheduler was made."""
        self.adopt(move, destination)
        self.ended(move.name, arrived=True)

    def withdraw(self, name: str) -> bool:
        """Never begin it; whether it was waiting."""
        for queue in self._queues.values():
            if found := next((one for one in queue if one.move.name == name), None):
                queue.remove(found)
                return True
        left = [one for one in self._later if one[1] != name]
        was_there = len(left) < len(self._later)
        self._later = left
        heapq.heapify(self._later)
        return was_there

    def wake_all(self) -> None:
        """Limits have changed: look at everything again."""
        for source in self._queues:
            self._wake(source)

    def _give_room(self, host: str, memory: int) -> None:
        room = self._room[host]
        if room is not None:
            self._room[host] = room + memory

    def _enqueue(self, move: Move) -> None:
        insort(self._queues[move.source], Queued(self._keys[move.name], move))
        self._wake(move.source)

    def _wake(self, source: str) -> None:
        self._is_new = True
        if queue := self._queues[source]:
            heapq.heappush(self._ready, (queue[0].key, source))

    def _from(self, source: str, look: int | None) -> list[Start]:
        """What begins of a source now, of the first `look` of its queue: one at most, behind which
        it waits for its turn again."""
        queue = self._queues[source]
        if not queue or not self._may_leave(source):
            return []
        for queued in queue[:look]:
            if (destination := self._maybe_destination(queued.move)) is not None:
                queue.remove(queued)
                self._wake(source)
                return [self._begin(queued.move, destination)]
        for host in {host for queued in queue[:look] for host in queued.move.candidates}:
            heapq.heappush(self._parked[host], (queue[0].key, source))
        return []

    def _unparked(self, host: str) -> list[Start]:
        """What begins of those that waited for a place at `host`; the others wait on."""
        parked, starts = self._parked.pop(host, []), list[Start]()
        seen: set[str] = set()
        while parked and self._has_room and self._may_come(host):
            _, source = heapq.heappop(parked)
            if source not in seen:
                seen.add(source)
                starts += self._from(source, LOOK)
        self._parked[host] += parked
        heapq.heapify(self._parked[host])
        if parked and self._may_come(host):
            self._freed.add(host)  # the cluster had no place left for them
        return starts

    def _may_leave(self, source: str) -> bool:
        most = min(self.limits.per_source, self._on_link(source))
        return self._leaving[source] < most

    def _may_come(self, host: str) -> bool:
        return self._coming[host] < min(self.limits.per_destination, self._on_link(host))

    def _on_link(self, host: str) -> int:
        return min(self.limits.per_link, self._most_on_link(host))

    def _maybe_destination(self, move: Move) -> str | None:
        """The candidate to which least was given, of those that have a place and room; the one at
        which it failed only where there is no other."""
        failed = self._failed_at.get(move.name)
        free = [host for host in move.candidates if self._fits(move, host)]
        return min(
            free,
            key=lambda host: (host == failed, self._coming[host], self._load[host]),
            default=None,
        )

    def _fits(self, move: Move, host: str) -> bool:
        room = self._room[host]
        return self._may_come(host) and (room is None or move.memory <= room)

    def _begin(self, move: Move, destination: str) -> Start:
        start = self.running[move.name] = Start(move, destination)
        self._leaving[move.source] += 1
        self._coming[destination] += 1
        self._load[destination] += round(self._predicted(move))
        self._give_room(destination, -move.memory)
        return start


def budgets(plan: Plan) -> Mapping[str, int]:
    """Bytes/s of each host's link that may be used, each way; 0: nobody knows a limit."""
    known = {name: (host.link, plan.bandwidth) for name, host in plan.hosts.items()}
    return {name: min(filter(None, pair), default=0) for name, pair in known.items()}
