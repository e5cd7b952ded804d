"""Who has the guest: the steps of the commit, as each end has them on record. Pure.

A step goes on record *before* what it allows is done, by compare-and-swap: of a commit and
somebody who closes the record one wins, and who reads it after a crash knows what may have
happened. `ready` without `committed` never starts a guest; from `intent` on nothing but an
answer of the destination lets the source's guest run again.
"""

from enum import StrEnum
from typing import Literal, Protocol

from protocol.control import NotStarted, Started
from protocol.errors import LocalProtocolError
from protocol.session import Role


class Step(StrEnum):
    """Where the commit stands at one end."""

    OPEN = "open"
    INTENT = "intent"
    GIVEN = "given"
    KEPT = "kept"
    READY = "ready"
    COMMITTED = "committed"
    STARTED = "started"
    NOT_STARTED = "not-started"


_S = Step
STEPS: dict[Role, dict[Step, frozenset[Step]]] = {
    "source": {
        _S.OPEN: frozenset({_S.INTENT, _S.KEPT}),
        _S.INTENT: frozenset({_S.GIVEN, _S.KEPT}),
        _S.GIVEN: frozenset(),
        _S.KEPT: frozenset(),
    },
    "destination": {
        _S.OPEN: frozenset({_S.READY, _S.NOT_STARTED}),
        _S.READY: frozenset({_S.COMMITTED, _S.NOT_STARTED}),
        _S.COMMITTED: frozenset({_S.STARTED, _S.NOT_STARTED}),
        _S.STARTED: frozenset(),
        _S.NOT_STARTED: frozenset(),
    },
}
"""For each role the steps, and what may follow; a step that nothing follows is closed."""


class Keeper(Protocol):
    """What keeps the step of one end on record."""

    @property
    def step(self) -> Step:
        """The step that was kept last."""
        ...

    def change(self, old: Step, new: Step, reason: str = "") -> bool:
        """Keep `new` for good; False, and nothing is changed, where `old` no longer holds.

        MigrationError where it cannot be kept.
        """
        ...


class SourceCommit:
    """The source's part; `guest` says who has the guest, as far as this end knows."""

    def __init__(self, record: Keeper) -> None:
        self._record = record
        self.guest: Literal["source", "unknown", "destination"] = "source"

    def intend(self) -> None:
        """Keep the intent; only after that may the commit be sent."""
        if not self._record.change(Step.OPEN, Step.INTENT):
            raise LocalProtocolError(f"the intent after step {self._record.step}")
        self.guest = "unknown"

    def given(self) -> None:
        """The destination has it, and said so."""
        self.guest = "destination"
        self._record.change(Step.INTENT, Step.GIVEN)

    def refused(self) -> None:
        """It certainly does not run there: `NotStarted`, or a `Failed` that crossed the commit."""
        self.guest = "source"
        self._record.change(Step.INTENT, Step.KEPT)


class DestinationCommit:
    """The destination's part; `answer` is what every commit is answered with from then on."""

    def __init__(self, record: Keeper) -> None:
        self._record = record
        self.answer: Started | NotStarted | None = None

    def get_ready(self) -> bool:
        """Keep that all is there; False where the record was closed before."""
        return self._record.change(Step.OPEN, Step.READY)

    def heard_commit(self) -> bool:
        """Whether to start the guest now: true once, and never where the record was closed."""
        if self.answer is not None:
            return False
        if self._record.change(Step.READY, Step.COMMITTED):
            return True
        self.answer = NotStarted(reason=f"the record of this session says {self._record.step}")
        return False

    def started(self, start_ms: float, *, running: bool) -> None:
        """The guest was started. Where that cannot be kept it is the answer all the same."""
        self.answer = Started(start_ms=start_ms, running=running)
        self._record.change(Step.COMMITTED, Step.STARTED)

    def refuse(self, reason: str) -> None:
        """It was not started, for certain, and will not be."""
        for step in (Step.OPEN, Step.READY, Step.COMMITTED):
            if self._record.change(step, Step.NOT_STARTED, reason):
                self.answer = NotStarted(reason=reason)
                return
