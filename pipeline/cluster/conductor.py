"""Conducts a batch: begins what the scheduler allows, hears how it ends, decides what follows.

One thread, which takes what Dask's threads say from a queue. What is decided is in the journal
before it is done. Where an attempt ended without an answer nothing is tried again until it is known
which end has the guest.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from queue import Empty, Queue
from statistics import median
from typing import Any
from uuid import uuid4

import msgspec
import structlog

from pipeline.batch.forecast import Forecast, forecast, link_limit, predicted_alone
from pipeline.batch.journal import AttemptRow, Journal
from pipeline.batch.moves import Move
from pipeline.batch.outcome import Kind, Outcome, backoff_s, may_retry, outcome_of
from pipeline.batch.plan import Limits, Plan
from pipeline.batch.prediction import FULL_SPEED, RATIO
from pipeline.batch.schedule import Scheduler, Start, budgets
from pipeline.batch.shares import Shares
from pipeline.batch.window import is_open
from pipeline.cluster import tasks
from pipeline.cluster.attempt import Attempt
from pipeline.cluster.dask import Dask
from pipeline.cluster.ends import Ended
from pipeline.cluster.settling import Left
from protocol.session import Role

TURN_S = 0.25
AHEAD = 1000
"""Moves that are foreseen while others run: some 0.2 s."""
GIVE_UP_S = 20.0
"""For a destination to end behind its source."""
Happening = Callable[[], None]


class Conductor:
    """Of one batch. `clock` gives seconds since the epoch."""

    def __init__(
        self,
        plan: Plan,
        moves: list[Move],
        journal: Journal,
        dask: Dask,
        happenings: "Queue[Happening]",
        clock: Callable[[], float],
    ) -> None:
        self.plan = plan
        self.moves = {move.name: move for move in moves}
        self.journal = journal
        self.attempts: dict[str, Attempt] = {}
        self.paused = False
        self.cancelled = False
        self.failures = 0
        self._dask = dask
        self._happenings = happenings
        self._clock = clock
        self._cores = dask.cores
        self._wire_rates: list[float] = []
        self._deadlines: dict[tuple[str, str], tuple[float, Happening]] = {}
        self.scheduler = Scheduler(
            plan, moves, predicted_alone(plan), link_limit(plan, self._single_stream)
        )
        self.shares = Shares(budgets(plan))

    def _single_stream(self) -> float:
        """Bytes/s on the wire of one migration that no share holds back, as measured here."""
        return median(self._wire_rates) if self._wire_rates else FULL_SPEED / RATIO["zlib"]

    @property
    def is_over(self) -> bool:
        """Whether nothing is under way, and nothing will be."""
        return not self.attempts and (self._ends or not self.scheduler.waiting or self._is_stuck)

    @property
    def _ends(self) -> bool:
        """Whether nothing begins any more."""
        most = self.plan.most_failures
        return self.cancelled or (most is not None and self.failures > most)

    @property
    def _is_stuck(self) -> bool:
        """Whether those that wait wait for room that nobody will make."""
        waits_for_time = self.scheduler.next_retry_s is not None or not self._may_begin
        return not waits_for_time and not self.scheduler.running and bool(self.scheduler.waiting)

    @property
    def _may_begin(self) -> bool:
        return not self.paused and is_open(self.plan.window, self._clock())

    def ahead(self) -> Forecast:
        """What is left, as the dry run foresees it: of those under way what they have not sent."""
        left = [
            replace(one.move, memory=round(one.move.memory * (1 - one.percent / 100)))
            for one in self.attempts.values()
        ]
        return forecast(self.plan, [*left, *self.scheduler.waiting][:AHEAD], cores=self._cores)

    def turn(self) -> None:
        """Hear what has happened, for a moment at most; do what is due."""
        try:
            self._happenings.get(timeout=TURN_S)()
            while True:
                self._happenings.get_nowait()()
        except Empty:
            pass
        now_s = self._clock()
        for key, (at_s, do) in list(self._deadlines.items()):
            if at_s <= now_s and self._deadlines.pop(key, None) is not None:
                do()
        for host in self._dask.look_after():
            self._note("host", detail=f"{host} is started")
        if not self._ends and self._may_begin:
            for start in self.scheduler.due(now_s):
                self._begin(start)

    def _begin(self, start: Start) -> None:
        move, token = start.move, uuid4().hex[:16]
        tries = self.journal.move(move.name).tries + 1
        attempt = Attempt(token, move, start.destination, tries, self._clock())
        self.shares.add(token, move.source, start.destination)
        attempt.share = self.shares.of(token)
        self.attempts[token] = attempt
        row = AttemptRow(token, move.name, move.source, start.destination, attempt.began_s)
        self.journal.attempt(row, tries)
        self._share_again(attempt)
        self._run(attempt, "destination", tasks.attend, attempt.order(self.plan, "destination"))
        self._within(attempt, "attempt", self.plan.timeouts.attempt, partial(
            self.stop, token, f"not done in {self.plan.timeouts.attempt:g} s"))  # fmt: skip

    def adopt(self, row: AttemptRow, tries: int) -> None:
        """One that was begun by a conductor that is no more: what has not begun of it never does,
        the rest is waited for."""
        attempt = self._known(row, tries)
        self._note("adopt", attempt)
        roles: tuple[Role, Role] = ("destination", "source")
        for role in roles:
            self._run(attempt, role, tasks.forbid, row.token, role)

    def put_away(self, row: AttemptRow, tries: int) -> None:
        """One that has ended, of which a conductor that is no more has not put away what it
        left."""
        attempt, kind = self._known(row, tries), row.outcome or "failed"
        self._discard(attempt, Outcome(kind))

    def resolve_again(self, row: AttemptRow, tries: int, session: str | None) -> None:
        """One of which nobody knew which end has the guest."""
        attempt = self._known(row, tries)
        if session is None:
            self._ask(attempt, attempt.move.source, self._looked, tasks.look_at_source, row.token)
        else:
            self._resolve(attempt, Outcome("unknown", row.reason or "", session))

    def _known(self, row: AttemptRow, tries: int) -> Attempt:
        """An attempt that is in the journal, as one that is under way."""
        move = self.moves[row.move]
        attempt = Attempt(
            row.token, move, row.destination, tries, row.began, uri=row.uri, sent=True
        )
        self.attempts[row.token] = attempt
        self.scheduler.adopt(move, row.destination)
        self.shares.add(row.token, move.source, row.destination)
        return attempt

    def _run(
        self, attempt: Attempt, role: Role, function: Callable[..., object], *arguments: object
    ) -> None:
        """On the host of an end, whose end is heard of."""
        then = partial(self._later, partial(self._ended, attempt.token, role))
        self._dask.run(attempt.host_of(role), function, *arguments, then=then)

    def _later(self, do: Callable[[Any], None], answer: object) -> None:
        """From a thread of Dask's."""
        self._happenings.put(partial(do, answer))

    def _within(self, attempt: Attempt, what: str, seconds: float, do: Happening) -> None:
        self._deadlines[attempt.token, what] = self._clock() + seconds, do

    def heard(self, said: dict[str, Any]) -> None:
        """What an end's log says, as soon as it does."""
        attempt = self.attempts.get(str(said.get("token")))
        if attempt is None:
            return
        if said.get("event") == "listening" and said["role"] == "destination":
            self._listens(attempt, str(said["socket_address"]))
        if said.get("event") == "progress" and said["role"] == "source":
            attempt.percent = max(attempt.percent, float(said.get("percent") or 0))
            attempt.wire_rate = said.get("wire_rate")

    def _listens(self, attempt: Attempt, uri: str) -> None:
        if attempt.sent or attempt.stopping or attempt.there is not None:
            return
        attempt.uri, attempt.sent = uri, True
        self.journal.change_attempt(attempt.token, uri=uri)
        self._run(attempt, "source", tasks.attend, attempt.order(self.plan, "source"))

    def _ended(self, token: str, role: Role, answer: object) -> None:
        """An end is over, or its host has not answered: then it is asked for again."""
        attempt = self.attempts.get(token)
        if attempt is None:
            return
        if not isinstance(answer, Ended):
            self._note("lost", attempt, f"{attempt.host_of(role)} ({role}): {answer}")
            gone = partial(self._ended, token, role, Ended(begun=True, words="its host is gone"))
            self._within(attempt, f"host of {role}", self.plan.timeouts.host, gone)
            self._run(attempt, role, tasks.forbid, token, role)
            return
        self._deadlines.pop((token, f"host of {role}"), None)
        if role == "source":
            attempt.here = attempt.here or answer
            self._source_ended(attempt)
        elif attempt.there is None:
            attempt.there = answer
            self._destination_ended(attempt)

    def _source_ended(self, attempt: Attempt) -> None:
        result = attempt.result
        if attempt.there is not None:
            self._conclude(attempt)
            return
        if result is None or result.guest_alive == "source":
            self._run_aside(attempt.destination, tasks.stop, attempt.token, "destination")
        again = partial(self._ended, attempt.token, "destination",
                        Ended(begun=True, words="it did not end"))  # fmt: skip
        self._within(attempt, "destination", GIVE_UP_S, again)

    def _destination_ended(self, attempt: Attempt) -> None:
        self._deadlines.pop((attempt.token, "destination"), None)
        if not attempt.sent:
            attempt.here = Ended(begun=False)
        if attempt.here is not None:
            self._conclude(attempt)

    def _conclude(self, attempt: Attempt) -> None:
        """Both ends are over: what became of the guest?"""
        here, there = attempt.here, attempt.there
        assert here is not None
        assert there is not None
        if not here.begun:
            reason = there.result.error_desc if there.result else None
            self._is(attempt, Outcome("failed", attempt.stopping or reason or there.words))
            return
        outcome = outcome_of(here.result, here.words, there.result)
        if here.result is None and not attempt.settled:
            attempt.settled = True
            self._ask(attempt, attempt.move.source, self._looked, tasks.look_at_source,
                      attempt.token)  # fmt: skip
        elif outcome.kind == "unknown":
            self._resolve(attempt, outcome)
        else:
            self._is(attempt, outcome)

    def _ask(
        self,
        attempt: Attempt,
        host: str,
        then: Callable[[Attempt, object], None],
        function: Callable[..., object],
        *arguments: object,
    ) -> None:
        """A question to a host; it is an error, where it does not answer in time."""
        key = (attempt.token, function.__name__)

        def answered(answer: object) -> None:
            if self._deadlines.pop(key, None) is not None:
                then(attempt, answer)

        late = TimeoutError(f"{host} does not answer")
        self._deadlines[key] = self._clock() + self.plan.timeouts.host, partial(then, attempt, late)
        self._dask.run(host, function, *arguments, then=partial(self._later, answered))

    def _looked(self, attempt: Attempt, left: object) -> None:
        if not isinstance(left, Left):
            self._is(attempt, Outcome("unknown", f"its source is gone: {left}"))
        elif left.session is not None:
            self._resolve(attempt, Outcome("unknown", "its source died", left.session))
        elif left.given:
            self._is(attempt, Outcome("arrived", "its source died behind the commit"))
        else:
            self._is(attempt, Outcome("failed", "its source died"))

    def _resolve(self, attempt: Attempt, outcome: Outcome) -> None:
        """Never tried again, only resolved: the destination's record, closed, tells the source."""
        self.journal.change(attempt.move.name, session=outcome.session, reason=outcome.reason)
        self._note("resolve", attempt, outcome.reason)
        then = partial(self._resolved_there, outcome)
        self._ask(attempt, attempt.destination, then, tasks.closed_there, outcome.session)

    def _resolved_there(self, outcome: Outcome, attempt: Attempt, record: object) -> None:
        if not isinstance(record, bytes):
            self._is(attempt, Outcome("unknown", f"{outcome.reason}; {record}", outcome.session))
            return
        self._ask(attempt, attempt.move.source, partial(self._resolved, outcome, record),
                  tasks.settle_here, outcome.session, record)  # fmt: skip

    def _resolved(self, outcome: Outcome, record: bytes, attempt: Attempt, answer: object) -> None:
        if not isinstance(answer, str):
            self._is(attempt, Outcome("unknown", f"{outcome.reason}; {answer}", outcome.session))
            return
        arrived = msgspec.json.decode(record)["step"] == "started"
        kind: Kind = "arrived" if arrived else "failed"
        self._is(attempt, Outcome(kind, f"{outcome.reason}; resolved: {answer}"))

    def _is(self, attempt: Attempt, outcome: Outcome) -> None:
        """The end of an attempt, in the journal; then what it leaves is put away."""
        if attempt.stopping and outcome.kind == "cancelled":
            kind: Kind = "cancelled" if attempt.stopping == CANCELLED else "failed"
            outcome = Outcome(kind, attempt.stopping)
        result = None if attempt.result is None else msgspec.json.encode(attempt.result)
        with self.journal.together():
            self.journal.change_attempt(
                attempt.token, ended=self._clock(), outcome=outcome.kind, reason=outcome.reason,
                result=result,
            )  # fmt: skip
            self._keep_end(attempt, outcome)
            self._note(outcome.kind, attempt, outcome.reason)
        self._forget_deadlines(attempt)
        if outcome.kind in ("unknown", "lost"):
            self._close(attempt, outcome)
        else:
            self._discard(attempt, outcome)

    def _discard(self, attempt: Attempt, outcome: Outcome) -> None:
        """Put away what is left at the destination, then count it as over."""
        hook, told = attempt.hook_after(), attempt.environment(outcome.kind)
        then = partial(self._closed, outcome)
        self._ask(attempt, attempt.destination, then, tasks.discard, attempt.token, hook, told)

    def _keep_end(self, attempt: Attempt, outcome: Outcome) -> None:
        """Where the move stands from here on."""
        retries, tries = self.plan.retries, attempt.tries
        again, state = None, str(outcome.kind)
        may = may_retry(outcome.reason, tries, retries.most, retries.not_on)
        if outcome.kind == "failed" and may and not self._ends:
            again = self._clock() + backoff_s(tries, retries.backoff, retries.factor)
            state = "waiting"
        if state in ("failed", "unknown", "lost"):
            self.failures += 1
        place = attempt.destination if state == "arrived" else attempt.move.source
        if state in ("unknown", "lost"):
            place = ""
        self.journal.change(attempt.move.name, state=state, reason=outcome.reason, again=again,
                            session=outcome.session, place=place)  # fmt: skip
        rate = attempt.wire_rate
        if state == "arrived" and attempt.share is None and rate:
            self._wire_rates.append(rate)

    def _forget_deadlines(self, attempt: Attempt) -> None:
        for key in [key for key in self._deadlines if key[0] == attempt.token]:
            del self._deadlines[key]

    def _closed(self, outcome: Outcome, attempt: Attempt, answer: object) -> None:
        """What waited at the destination is gone, or nobody could say so."""
        if isinstance(answer, BaseException):
            self._note("left", attempt, f"{attempt.destination}: {answer}")
        self._close(attempt, outcome)

    def _close(self, attempt: Attempt, outcome: Outcome) -> None:
        move = self.journal.move(attempt.move.name)
        with self.journal.together():
            self.journal.change_attempt(attempt.token, closed=1)
            self._note("close", attempt)
        del self.attempts[attempt.token]
        self.shares.remove(attempt.token)
        arrived = outcome.kind == "arrived"
        self.scheduler.ended(attempt.move.name, arrived=arrived, again_s=move.again)
        self._share_again(attempt)

    def _share_again(self, changed: Attempt) -> None:
        """Those beside one that came or went have another share of the link."""
        for token in self.shares.beside(changed.move.source, changed.destination):
            attempt, share = self.attempts[token], self.shares.of(token)
            if share is not None and share != attempt.share:
                attempt.share = share
                self._note("share", attempt, str(share))
                if attempt.sent and attempt.here is None:
                    self._run_aside(attempt.move.source, tasks.steer, token, share)

    def _run_aside(self, host: str, function: Callable[..., object], *arguments: object) -> None:
        self._dask.run(host, function, *arguments, then=lambda _: None)

    def cancel(self, name: str) -> None:
        """One of them: the guest stays where it is."""
        for attempt in self.attempts.values():
            if attempt.move.name == name:
                self.stop(attempt.token, CANCELLED)
                return
        if self.scheduler.withdraw(name):
            self.journal.change(name, state="cancelled", reason=CANCELLED)

    def cancel_all(self) -> None:
        """Begin none any more, and cancel those under way."""
        self.cancelled = True
        for token in list(self.attempts):
            self.stop(token, CANCELLED)

    def limit(self, key: str, value: int) -> None:
        """Another limit from now on. ValueError for one that is none."""
        field = key.replace("-", "_")
        if field not in Limits.model_fields or value < 1:
            raise ValueError(f"expected one of {', '.join(LIMITS)}, and a number from 1 on")
        self.scheduler.limits = self.scheduler.limits.model_copy(update={field: value})
        self._note("limit", detail=f"{key}={value}")
        self.scheduler.wake_all()

    def stop(self, token: str, why: str) -> None:
        """Cancel an attempt; one past its commit goes on."""
        attempt = self.attempts.get(token)
        if attempt is None or attempt.stopping is not None:
            return
        attempt.stopping = why
        self._note("stop", attempt, why)
        role: Role = "source" if attempt.sent else "destination"
        self._run_aside(attempt.host_of(role), tasks.stop, token, role)

    def _note(self, what: str, attempt: Attempt | None = None, detail: str = "") -> None:
        move, token = (attempt.move.name, attempt.token) if attempt is not None else ("", "")
        self.journal.note(self._clock(), what, move, token, detail)
        structlog.get_logger().debug(what, move=move, detail=detail)


CANCELLED = "cancelled by the user"
LIMITS = [str(info.alias) for info in Limits.model_fields.values()]
