"""The dry run: the plan under a virtual clock, by the scheduler of the real run. Pure."""

import heapq
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from pipeline.batch.moves import Move, bandwidth
from pipeline.batch.plan import Plan
from pipeline.batch.prediction import WIRE_SPEED, memory_rate, memory_to_send, seconds
from pipeline.batch.schedule import Scheduler, budgets
from pipeline.batch.shares import Shares
from pipeline.config.units import format_bytes

OVERHEAD_S = 2.4
"""Of an attempt that has a core for each of its ends, in which three commands start: so long where
`pageferry --version` takes 0.32 s of a processor. Elsewhere STARTS times as long as that."""
STARTS = 7.5


@dataclass
class Flight:
    """A move under way in the forecast: seconds until it begins to send, bytes of memory left, and
    how fast these leave."""

    move: Move
    destination: str
    began_s: float
    left: float
    at_s: float
    rate: float
    version: int = 0


@dataclass(frozen=True)
class Foreseen:
    """When a move begins and ends, seconds from the start of the batch, and where it goes."""

    move: Move
    destination: str
    began_s: float
    ended_s: float


@dataclass
class Forecast:
    """What a plan comes to: in the order in which moves end; those that never begin."""

    foreseen: list[Foreseen] = field(default_factory=list)
    stuck: list[Move] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """The whole batch."""
        return max((one.ended_s for one in self.foreseen), default=0.0)


def why_stuck(move: Move) -> str:
    """Why a guest never begins in a forecast."""
    to = ", ".join(move.candidates[:5])
    return f"{move.name} from {move.source}: no room for its {format_bytes(move.memory)} at {to}"


def predicted_alone(plan: Plan) -> Callable[[Move], float]:
    """How long each takes with the link for itself (s); what orders them."""
    limits = budgets(plan)

    def alone(move: Move) -> float:
        known = [limits[host] for host in (move.source, move.candidates[0]) if limits[host]]
        share = bandwidth(move, min(known) if known else None)
        return OVERHEAD_S + seconds(move.memory, move.dirty_rate, move.codec, share)

    return alone


def link_limit(plan: Plan, wire_rate: Callable[[], float]) -> Callable[[str], int]:
    """How many migrations a host's link carries: as many as are asked for, or by
    `concurrency: auto` as many as `wire_rate`, the bytes/s of one that nothing holds back, fill."""
    limits = budgets(plan)

    def most(host: str) -> int:
        if isinstance(plan.concurrency, int):
            return plan.concurrency
        if plan.concurrency is None or not limits[host]:
            return 1_000_000
        return max(1, int(limits[host] / wire_rate()))

    return most


def forecast(
    plan: Plan,
    moves: list[Move],
    *,
    cores: int | None = None,
    overhead_s: float = OVERHEAD_S,
    under_way_s: Mapping[str, float] | None = None,
) -> Forecast:
    """The whole plan; `cores`: all hosts are one machine that has so many; `overhead_s`: of an
    attempt that has a core for each of its ends; `under_way_s`: those that began so long ago."""
    return _Virtual(plan, moves, cores, overhead_s, under_way_s or {}).run()


class _Virtual:
    """The clock, and what is under way by it."""

    def __init__(
        self,
        plan: Plan,
        moves: list[Move],
        cores: int | None,
        overhead_s: float,
        under_way_s: Mapping[str, float],
    ) -> None:
        limit = link_limit(plan, lambda: WIRE_SPEED)
        self._scheduler = Scheduler(plan, moves, predicted_alone(plan), limit)
        self._shares = Shares(budgets(plan))
        self._flights: dict[str, Flight] = {}
        self._ends: list[tuple[float, int, str]] = []
        self._cores = cores
        self._alone_s = overhead_s
        self._under_way_s = under_way_s
        self._now_s = 0.0
        self._found = Forecast()

    def run(self) -> Forecast:
        """Until nothing is under way."""
        self._begin()
        while self._ends:
            at_s, version, name = heapq.heappop(self._ends)
            flight = self._flights.get(name)
            if flight is None or flight.version != version:
                continue
            self._now_s = at_s
            self._end(flight)
            self._begin()
        self._found.stuck = self._scheduler.waiting
        return self._found

    def _begin(self) -> None:
        for start in self._scheduler.due(self._now_s):
            move = start.move
            self._shares.add(move.name, move.source, start.destination)
            rate = self._rate(move)
            left = memory_to_send(move.memory, move.dirty_rate, rate)
            waits_s = max(0.0, self._overhead_s - self._under_way_s.get(move.name, 0.0))
            flight = Flight(move, start.destination, self._now_s, left, self._now_s + waits_s, rate)
            self._flights[move.name] = flight
            self._plan_end(flight)
            self._share_again(move.source, start.destination)

    def _rate(self, move: Move) -> float:
        return memory_rate(move.codec, bandwidth(move, self._shares.of(move.name)))

    @property
    def _overhead_s(self) -> float:
        """Longer where the processors are shared by more ends than there are of them."""
        if self._cores is None:
            return self._alone_s
        return self._alone_s * max(1.0, 2 * len(self._scheduler.running) / self._cores)

    def _end(self, flight: Flight) -> None:
        name = flight.move.name
        del self._flights[name]
        self._shares.remove(name)
        self._scheduler.ended(name, arrived=True)
        self._found.foreseen.append(
            Foreseen(flight.move, flight.destination, flight.began_s, self._now_s)
        )
        self._share_again(flight.move.source, flight.destination)

    def _share_again(self, source: str, destination: str) -> None:
        """Who shares a link with one that came or went is faster, or slower, from now on."""
        for name in self._shares.beside(source, destination):
            flight = self._flights[name]
            rate = self._rate(flight.move)
            if rate != flight.rate:
                sent = max(0.0, self._now_s - flight.at_s) * flight.rate
                flight.left = max(0.0, flight.left - sent)
                flight.at_s = max(flight.at_s, self._now_s)
                flight.rate = rate
                self._plan_end(flight)

    def _plan_end(self, flight: Flight) -> None:
        flight.version += 1
        at_s = flight.at_s + flight.left / flight.rate
        heapq.heappush(self._ends, (at_s, flight.version, flight.move.name))
