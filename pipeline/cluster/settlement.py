"""What became of a guest when both ends of an attempt are over; where they leave that open, it is
asked for until it is known, or a host does not answer."""

from collections.abc import Callable
from functools import partial

from pipeline.batch.outcome import Outcome, outcome_of, what_is_wrong
from pipeline.cluster import tasks
from pipeline.cluster.attempt import Attempt
from pipeline.cluster.ends import Ended
from pipeline.cluster.questions import Questions
from pipeline.cluster.settling import OVER_S, Left, Word
from pipeline.result import Result
from protocol.commit import Step

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
        else:
            self._judge(attempt, here.result, here.words)

    def _judge(self, attempt: Attempt, result: Result | None, words: str) -> None:
        there = attempt.there.result if attempt.there is not None else None
        outcome = outcome_of(result, words, there)
        if outcome.kind == "unknown":
            self.resolve(attempt, outcome)
        else:
            self._then(attempt, outcome)

    def resolve(self, attempt: Attempt, outcome: Outcome) -> None:
        """Never tried again, only resolved: first see that the source is over."""
        self._resolving(attempt, outcome)
        then = partial(self._source_is_over, attempt, outcome)
        self._ask(attempt, attempt.move.source, tasks.end_of_source, attempt.token, then=then)

    def _source_is_over(self, attempt: Attempt, outcome: Outcome, answer: object) -> None:
        if not isinstance(answer, Left):
            self._not_known(attempt, outcome, answer)
            return
        found = outcome_of(answer.result, outcome.reason, None)
        if answer.result is not None and found.kind != "unknown":
            attempt.here = Ended(begun=True, result=answer.result)
            self._then(attempt, found)
        elif answer.step in (None, Step.INTENT):
            then = partial(self._last_word, attempt, outcome)
            self._ask(attempt, attempt.destination, tasks.last_word, attempt.token, then=then)
        else:  # its own record says it
            self._settle(attempt, outcome, Word(None, has_come=answer.step is Step.GIVEN))

    def _last_word(self, attempt: Attempt, outcome: Outcome, word: object) -> None:
        if isinstance(word, Word):
            self._settle(attempt, outcome, word)
        else:
            self._not_known(attempt, outcome, word)

    def _settle(self, attempt: Attempt, outcome: Outcome, word: Word) -> None:
        then, source = partial(self._settled, attempt, outcome, word.has_come), attempt.move.source
        self._ask(attempt, source, tasks.settle_source, attempt.token, word.record, then=then)

    def _settled(
        self, attempt: Attempt, outcome: Outcome, has_arrived: bool, answer: object
    ) -> None:
        if not isinstance(answer, bool):
            self._not_known(attempt, outcome, answer)
        elif has_arrived:
            there = attempt.there.result if attempt.there is not None else None
            self._then(attempt, Outcome("arrived", what_is_wrong(there)))
        elif answer:
            self._then(attempt, Outcome("failed", outcome.reason))
        else:
            self._then(attempt, Outcome("lost", outcome.reason))

    def _not_known(self, attempt: Attempt, outcome: Outcome, answer: object) -> None:
        reason = f"{outcome.reason.partition(';')[0]}; {answer}"
        self._then(attempt, Outcome("unknown", reason, outcome.session))

    def _ask(
        self,
        attempt: Attempt,
        host: str,
        function: Callable[..., object],
        *arguments: object,
        then: Callable[[object], None],
    ) -> None:
        within_s = self._within_s + OVER_S
        self._questions.ask(attempt.token, host, function, *arguments, within_s=within_s, then=then)
