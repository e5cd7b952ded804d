"""Where a batch stands, from its journal: for the terminal, `status`, JSON and the report. Pure."""

from collections import Counter
from collections.abc import Iterable

import msgspec
from msgspec import Struct

from pipeline.batch.journal import AttemptRow, MoveRow
from pipeline.result import Result, ratio

ENDED = ("arrived", "failed", "unknown", "lost", "cancelled", "stuck")


class MoveSummary(Struct, frozen=True, rename="kebab", kw_only=True):
    """One guest: where it runs now (null: nobody knows), what its last attempt came to."""

    name: str
    state: str
    source: str
    destination: str | None = None
    place: str | None = None
    reason: str = ""
    tries: int = 0
    memory: int = 0
    percent: float = 0
    session: str | None = None
    began: float | None = None
    ended: float | None = None
    wire_bytes: int | None = None
    ratio: float | None = None
    rounds: int | None = None
    downtime: int | None = None
    bottleneck: str | None = None
    verified: bool | str | None = None


class HostSummary(Struct, frozen=True, rename="kebab", kw_only=True):
    """One host: guests and bytes of memory that left it, and came."""

    name: str
    left: int
    came: int
    bytes_out: int
    bytes_in: int
    to_leave: int


class Summary(Struct, frozen=True, rename="kebab", kw_only=True):
    """All of it; `percent` is of bytes of guest memory."""

    name: str
    began: float
    ended: float | None
    counts: dict[str, int]
    percent: float
    moves: list[MoveSummary]
    hosts: list[HostSummary]

    @property
    def words(self) -> str:
        """The summary on one line."""
        told = ", ".join(f"{count} {state}" for state, count in self.counts.items() if count)
        return f"{told}; {self.percent:.0f} % of memory"

    @property
    def all_arrived(self) -> bool:
        """Whether every guest has, and is as it was."""
        return all(one.state == "arrived" and not one.reason for one in self.moves)


def summary(
    name: str,
    times: tuple[float, float | None],
    moves: list[MoveRow],
    attempts: Iterable[AttemptRow],
    hosts: Iterable[str],
) -> Summary:
    """Of the batch `name` that began and ended at `times`, s since the epoch."""
    last = {attempt.move: attempt for attempt in attempts}
    told = [_move(move, last.get(move.name)) for move in moves]
    counted: Counter[str] = Counter(one.state for one in moves)
    states = ("running", "waiting", *ENDED)
    memory = sum(one.memory for one in moves)
    sent = sum(one.memory * one.percent / 100 for one in told)
    return Summary(
        name=name,
        began=times[0],
        ended=times[1],
        counts={state: counted[state] for state in states},
        percent=100 * sent / memory if memory else 100,
        moves=told,
        hosts=[_host(host, told) for host in hosts],
    )


def _move(row: MoveRow, attempt: AttemptRow | None) -> MoveSummary:
    found = MoveSummary(
        name=row.name,
        state=row.state,
        source=row.source,
        place=row.place or None,
        reason=row.reason,
        tries=row.tries,
        memory=row.memory,
        session=row.session,
    )
    return found if attempt is None else _with_attempt(found, attempt)


def _with_attempt(found: MoveSummary, attempt: AttemptRow) -> MoveSummary:
    """What its last attempt came to, or how far it is."""
    result = msgspec.json.decode(attempt.result, type=Result) if attempt.result else Result()
    return msgspec.structs.replace(
        found,
        destination=attempt.destination,
        began=attempt.began,
        ended=attempt.ended,
        percent={"arrived": 100.0, "running": attempt.percent}.get(found.state, 0.0),
        wire_bytes=result.ram.transferred if result.ram else None,
        ratio=ratio(result),
        rounds=len(result.rounds) or None,
        downtime=result.downtime,
        bottleneck=result.bottleneck,
        verified=result.verified,
    )


def _host(name: str, moves: list[MoveSummary]) -> HostSummary:
    arrived = [one for one in moves if one.state == "arrived"]
    left = [one for one in arrived if one.source == name]
    came = [one for one in arrived if one.destination == name]
    return HostSummary(
        name=name,
        left=len(left),
        came=len(came),
        bytes_out=sum(one.memory for one in left),
        bytes_in=sum(one.memory for one in came),
        to_leave=sum(one.source == name for one in moves) - len(left),
    )
