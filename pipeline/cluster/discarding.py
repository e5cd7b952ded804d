"""What an attempt leaves at its destination is put away there, after it; and what older ones left
that nobody has put away yet."""

from collections.abc import Callable
from functools import partial

import structlog

from pipeline.batch.journal import Journal
from pipeline.batch.outcome import Kind
from pipeline.cluster import tasks
from pipeline.cluster.attempt import Attempt
from pipeline.cluster.ends import HOOK_S
from pipeline.cluster.questions import Questions

Note = Callable[[str, Attempt, str], None]


class Discarding:
    """Of one batch, whose hosts answer in `within_s`; `left` are the tokens of older attempts."""

    def __init__(self, questions: Questions, journal: Journal, within_s: float, note: Note) -> None:
        self.left: set[str] = set()
        self._questions = questions
        self._journal = journal
        self._within_s = within_s
        self._note = note

    def discard(self, attempt: Attempt, kind: Kind, then: Callable[[object], None]) -> None:
        """`then` hears True; False of a guest that says that it has come all the same; an exception
        where the host has not done it, or not in time."""
        hook, told = attempt.hook_after(), attempt.environment(kind)
        self._questions.ask(
            *(attempt.token, attempt.destination, tasks.discard, attempt.token, hook, told),
            within_s=self._within_s + (HOOK_S if hook is not None else 0),
            then=partial(self._heard, attempt, then),
        )

    def _heard(self, attempt: Attempt, then: Callable[[object], None], answer: object) -> None:
        if isinstance(answer, BaseException):
            self._note("left", attempt, f"{attempt.destination}: {answer}")
            structlog.get_logger().warning(f"{attempt.move.name}, {attempt.destination}: {answer}")
        then(answer)

    def tidy(self, attempt: Attempt, kind: Kind) -> None:
        """Of a guest that was tried again since."""
        self.left.add(attempt.token)
        self.discard(attempt, kind, partial(self._tidied, attempt.token))

    def _tidied(self, token: str, answer: object) -> None:
        self.left.discard(token)
        if answer is True:
            self._journal.change_attempt(token, closed=1)
