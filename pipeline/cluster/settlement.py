"""What became of a guest when both ends of an attempt are over; where they leave that open, it is
asked for until it is known, or a host does not answer."""

from collections.abc import Callable
from functools import partial

import msgspec

from pipeline.batch.outcome import Kind, Outcome, outcome_of
from pipeline.cluster import tasks
from pipeline.cluster.attempt import Attempt
from pipeline.cluster.questions import Questions
from pipeline.cluster.settling import Left

Then = Callable[[Attempt, Outcome], None]


class Settlement:
    """Of one batch; `then` hears of each outcome once, `resolving` of those that are not known."""

    def __init__(self, questions: Questions, within_s: float, then: Then, resolving: Then) -> None:
        self._questions = questions
        self._within_s = within_s
        self._then = then
        self._resolving = resolving

    def conclude(self, attempt: Attempt) -> None:
        """Both ends are over."""
        here, there = attempt.here, attempt.there
        assert here is not None
        assert there is not None
        if not here.begun:
            reason = there.result.error_desc if there.result else None
            self._then(attempt, Outcome("failed", attempt.stopping or reason or there.words))
            return
        outcome = outcome_of(here.result, here.words, there.result)
        if here.result is None:
            self.look_at_source(attempt)
        elif outcome.kind == "unknown":
            self.resolve(attempt, outcome)
        else:
            self._then(attempt, outcome)

    def look_at_source(self, attempt: Attempt) -> None:
        """Of a source that left no result: its host puts right what can be, and says what it has
        on record."""
        self._ask(attempt, attempt.move.source, partial(self._looked, attempt),
                  tasks.look_at_source, attempt.token)  # fmt: skip

    def _looked(self, attempt: Attempt, left: object) -> None:
        if not isinstance(left, Left):
            self._then(attempt, Outcome("unknown", f"its source is gone: {left}"))
        elif left.session is not None:
            self.resolve(attempt, Outcome("unknown", "its source died", left.session))
        elif left.given:
            self._then(attempt, Outcome("arrived"))
        else:
            self._then(attempt, Outcome("failed", "its source died"))

    def resolve(self, attempt: Attempt, outcome: Outcome) -> None:
        """Never tried again, only resolved: the destination's record, closed, tells the source."""
        self._resolving(attempt, outcome)
        self._ask(attempt, attempt.destination, partial(self._closed_there, attempt, outcome),
                  tasks.closed_there, outcome.session)  # fmt: skip

    def _closed_there(self, attempt: Attempt, outcome: Outcome, record: object) -> None:
        if not isinstance(record, bytes):
            self._not_known(attempt, outcome, record)
            return
        then = partial(self._settled_here, attempt, outcome, record)
        self._ask(attempt, attempt.move.source, then, tasks.settle_here, outcome.session, record)

    def _settled_here(
        self, attempt: Attempt, outcome: Outcome, record: bytes, answer: object
    ) -> None:
        if not isinstance(answer, str):
            self._not_known(attempt, outcome, answer)
            return
        arrived = msgspec.json.decode(record)["step"] == "started"
        kind: Kind = "arrived" if arrived else "failed"
        self._then(attempt, Outcome(kind, "" if arrived else f"{outcome.reason}; it stayed"))

    def _not_known(self, attempt: Attempt, outcome: Outcome, answer: object) -> None:
        self._then(attempt, Outcome("unknown", f"{outcome.reason}; {answer}", outcome.session))

    def _ask(
        self,
        attempt: Attempt,
        host: str,
        then: Callable[[object], None],
        function: Callable[..., object],
        *arguments: object,
    ) -> None:
        self._questions.ask(
            attempt.token, host, function, *arguments, within_s=self._within_s, then=then
        )
