"""Conducts a batch: begins what the scheduler allows, hears how it ends, decides what follows.

One thread, which takes what Dask's threads say from a queue. What is decided is in the journal
before it is done. Where an attempt ended without an answer nothing is tried again until it is known
which end has the guest.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from uuid import uuid4

import msgspec

from pipeline.batch.forecast import Forecast, link_limit, predicted_alone
from pipeline.batch.journal import AttemptRow, Journal, MoveRow
from pipeline.batch.learning import Learning
from pipeline.batch.moves import Move, bandwidth
from pipeline.batch.outcome import Outcome, backoff_s, may_retry
from pipeline.batch.plan import Limits, Plan
from pipeline.batch.schedule import Scheduler, Start, budgets
from pipeline.batch.shares import Shares
from pipeline.batch.window import is_open
from pipeline.cluster.attempt import Attempt
from pipeline.cluster.attending import CANCELLED, Attending
from pipeline.cluster.discarding import Discarding
from pipeline.cluster.questions import Questions
from pipeline.cluster.settlement import Settlement

FAILURES = ("failed", "unknown", "lost")


class Conductor:
    """Of one batch. `clock` gives seconds since the epoch; `cores`: the processors of this machine,
    where all hosts are on it."""

    def __init__(
        self,
        plan: Plan,
        moves: list[Move],
        journal: Journal,
        questions: Questions,
        clock: Callable[[], float],
        cores: int | None,
    ) -> None:
        self.plan = plan
        self.moves = {move.name: move for move in moves}
        self.journal = journal
        self.paused = self.cancelled = self._found_none = False
        self._failures = 0
        self._questions = questions
        self._clock = clock
        self._learning = Learning(plan, cores)
        limit = link_limit(plan, self._learning.single_stream)
        self.scheduler = Scheduler(plan, moves, predicted_alone(plan), limit)
        self._shares = Shares(budgets(plan))
        self.attending = Attending(plan, journal, questions, self.note, self._settle)
        self._discarding = Discarding(questions, journal, plan.timeouts.host, self.note)
        self._settlement = Settlement(questions, plan.timeouts.host, self._is, self._note_resolving)

    @property
    def is_over(self) -> bool:
        """Whether nothing is under way, and nothing will be."""
        if self.attending.attempts or self._discarding.left:
            return False
        return self._ends or not self.scheduler.waiting or self._found_none

    @property
    def _ends(self) -> bool:
        """Whether nothing begins any more."""
        return self.cancelled or self.has_failed_too_often

    @property
    def has_failed_too_often(self) -> bool:
        """Whether more have failed than the plan bears."""
        most = self.plan.most_failures
        return most is not None and self._failures > most

    @property
    def _may_begin(self) -> bool:
        return not self.paused and is_open(self.plan.window, self._clock())

    def ahead(self) -> Forecast:
        """What is left: of those under way what they have not sent."""
        under_way, now_s = self.attending.attempts.values(), self._clock()
        left = [
            replace(one.move, memory=round(one.move.memory * (1 - one.percent / 100)))
            for one in under_way
        ]
        began = {one.move.name: now_s - one.began_s for one in under_way}
        return self._learning.ahead([*left, *self.scheduler.waiting], began)

    def begin_due(self) -> None:
        """Begin what may begin now. Where nothing may although it was looked for, none runs and no
        retry is due, those that wait wait for room that nobody will make."""
        self._found_none = False
        if self._ends or not self._may_begin:
            return
        starts = self.scheduler.due(self._clock())
        for start in starts:
            self._begin(start)
        waits = self.attending.attempts or self.scheduler.next_retry_s is not None
        self._found_none = not starts and not waits

    def _begin(self, start: Start) -> None:
        move, token = start.move, uuid4().hex[:16]
        tries = self.journal.move(move.name).tries + 1
        attempt = Attempt(token, move, start.destination, tries, self._clock())
        self._shares.add(token, move.source, start.destination)
        attempt.share = bandwidth(move, self._shares.of(token))
        self.attending.attempts[token] = attempt
        row = AttemptRow(token, move.name, move.source, start.destination, attempt.began_s)
        self.journal.attempt(row, tries)
        self._share_again(attempt)
        self.attending.begin(attempt)

    def adopt(self, row: AttemptRow, tries: int) -> None:
        """One that was begun by a conductor that is no more: what has not begun of it never does,
        the rest is waited for."""
        attempt = self._known(row, tries)
        attempt.adopted = True
        self.note("adopt", attempt)
        self.attending.take_over(attempt)

    def over_before(self, move: MoveRow) -> None:
        """One that will not be tried again."""
        self._failures += move.state in FAILURES
        self.scheduler.withdraw(move.name)

    def put_away(self, row: AttemptRow, tries: int) -> None:
        """One that has ended, of which a conductor that is no more has not put away what it
        left."""
        self._failures += self.journal.move(row.move).state in FAILURES
        attempt = self._known(row, tries)
        attempt.is_over = True
        self._discard(attempt, Outcome(row.outcome or "failed", row.reason or ""))

    def tidy(self, row: AttemptRow) -> None:
        """An older attempt, of which what it left was never put away."""
        attempt = Attempt(row.token, self.moves[row.move], row.destination, 0, row.began)
        self._discarding.tidy(attempt, row.outcome or "failed")

    def resolve_again(self, row: AttemptRow, move: MoveRow) -> None:
        """One of which nobody knew which end has the guest."""
        attempt = self._known(row, move.tries)
        attempt.is_over = True
        self._settlement.resolve(attempt, Outcome("unknown", move.reason, move.session))

    def _known(self, row: AttemptRow, tries: int) -> Attempt:
        """An attempt that is in the journal, as one that is under way."""
        move, where = self.moves[row.move], row.destination
        attempt = Attempt(row.token, move, where, tries, row.began, uri=row.uri, sent=True)
        self.attending.attempts[row.token] = attempt
        self.scheduler.adopt(move, where)
        self._shares.add(row.token, move.source, where)
        return attempt

    def _settle(self, attempt: Attempt) -> None:
        self._settlement.conclude(attempt)

    def _note_resolving(self, attempt: Attempt, outcome: Outcome) -> None:
        with self.journal.together():
            self.journal.change(attempt.move.name, session=outcome.session, reason=outcome.reason)
            self.note("resolve", attempt, outcome.reason)

    def _is(self, attempt: Attempt, outcome: Outcome) -> None:
        """The outcome of an attempt, in the journal; then what it leaves is put away."""
        if outcome.kind in ("cancelled", "failed"):
            outcome = self._why(attempt, outcome)
        result = None if attempt.result is None else msgspec.json.encode(attempt.result)
        with self.journal.together():
            self.journal.change_attempt(attempt.token, ended=self._clock(), outcome=outcome.kind,
                                        reason=outcome.reason, result=result)  # fmt: skip
            self._keep(attempt, outcome)
            self.note(outcome.kind, attempt, outcome.reason)
        if outcome.kind == "unknown":
            self._close(attempt, outcome)
        else:
            self._discard(attempt, outcome)

    def _why(self, attempt: Attempt, outcome: Outcome) -> Outcome:
        """Of a guest that stayed: was it to? An end is told to end by its host, too, when that
        does."""
        if attempt.stopping == CANCELLED:
            return Outcome("cancelled", CANCELLED)
        if outcome.kind == "cancelled":
            return Outcome("failed", attempt.stopping or "its host ended")
        return outcome

    def _keep(self, attempt: Attempt, outcome: Outcome) -> None:
        """Where the move stands from here on. A failure for which a conductor that was killed may
        be to blame does not count."""
        retries, again = self.plan.retries, None
        tries = attempt.tries - (attempt.adopted and outcome.kind == "failed")
        state: str = outcome.kind
        may = may_retry(outcome.reason, tries, retries.most, retries.not_on)
        if state == "failed" and may and not self._ends:
            again = self._clock() + backoff_s(max(1, tries), retries.backoff, retries.factor)
            state = "waiting"
        self._failures += state in FAILURES
        place = {"arrived": attempt.destination, "unknown": "", "lost": ""}.get(
            state, attempt.move.source
        )
        self.journal.change(attempt.move.name, state=state, reason=outcome.reason, again=again,
                            session=outcome.session, place=place, tries=tries)  # fmt: skip
        if state == "arrived":
            self._learn(attempt)

    def _learn(self, attempt: Attempt) -> None:
        self._learning.rate(attempt.wire_rate, attempt.share)
        if attempt.result is not None and attempt.result.total_time is not None:
            took_s = self._clock() - attempt.began_s
            self._learning.overhead(took_s, attempt.result.total_time / 1000)

    def _discard(self, attempt: Attempt, outcome: Outcome) -> None:
        """Put away what is left at the destination, then count it as over."""
        then = partial(self._discarded, attempt, outcome)
        self._discarding.discard(attempt, outcome.kind, then)

    def _discarded(self, attempt: Attempt, outcome: Outcome, answer: object) -> None:
        if answer is False:
            reason = f"a guest runs at {attempt.destination} that was not to have come"
            self._is(attempt, Outcome("unknown", reason))
        else:
            self._close(attempt, outcome, whole=answer is True)

    def _close(self, attempt: Attempt, outcome: Outcome, *, whole: bool = True) -> None:
        """Its places are given to others; `whole`: nothing of it is left to be done."""
        again_s = self.journal.move(attempt.move.name).again
        with self.journal.together():
            self.journal.change_attempt(attempt.token, closed=int(whole))
            self.note("close", attempt)
        del self.attending.attempts[attempt.token]
        self._shares.remove(attempt.token)
        arrived = None if outcome.kind == "unknown" else outcome.kind == "arrived"
        self.scheduler.ended(attempt.move.name, arrived=arrived, again_s=again_s)
        self._share_again(attempt)

    def _share_again(self, changed: Attempt) -> None:
        """Those beside one that came or went have another share of the link."""
        for token in self._shares.beside(changed.move.source, changed.destination):
            attempt = self.attending.attempts[token]
            share = bandwidth(attempt.move, self._shares.of(token))
            if share is not None and share != attempt.share:
                attempt.share = share
                self.note("share", attempt, str(share))
                self.attending.steer(token, share)

    def cancel(self, name: str) -> None:
        """One of them: the guest stays where it is."""
        for attempt in self.attending.attempts.values():
            if attempt.move.name == name:
                self.attending.stop(attempt.token, CANCELLED)
        is_to_be_tried = self.journal.move(name).state == "waiting"
        if self.scheduler.withdraw(name) or is_to_be_tried:
            self.journal.change(name, state="cancelled", reason=CANCELLED, again=None)

    def cancel_all(self) -> None:
        """Begin none any more, and cancel those under way."""
        self.cancelled = True
        for name in self.moves:
            self.cancel(name)

    def later(self, move: MoveRow, failed_at: str) -> None:
        """One that has failed, and is to be tried again at its time."""
        self.scheduler.postpone(self.moves[move.name], move.again or 0, failed_at)

    def limit(self, key: str, value: int) -> None:
        """Another limit from now on. ValueError for one that is none."""
        now = self.scheduler.limits.model_dump(by_alias=True)
        self.scheduler.limits = Limits.model_validate({**now, key: value})
        self.note("limit", detail=f"{key}={value}")
        self.scheduler.wake_all()

    def note(self, what: str, attempt: Attempt | None = None, detail: str = "") -> None:
        """An event, in the journal."""
        move, token = (attempt.move.name, attempt.token) if attempt is not None else ("", "")
        self.journal.note(self._clock(), what, move, token, detail)
