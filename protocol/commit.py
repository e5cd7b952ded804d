"""Who has the guest: the steps of the commit, as each end has them on record. Pure.

A step goes on record *before* what it allows is done, by compare-and-swap: of a commit and
somebody who closes the record one wins, and who reads it after a crash knows what may have
happened. `ready` without `committed` never starts a guest; from `intent` on nothing but an
answer of the destination lets the source's guest run again.
"""

from enum import StrEnum
from typing import Literal, Protocol

from protocol.errors import LocalProtocolError, MigrationError
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
    """The destination's part; who closes the record keeps the guest from being started."""

    def __init__(self, record: Keeper) -> None:
        self._record = record

    def get_ready(self) -> None:
        """Keep that all is there; MigrationError where the record was closed before."""
        self._step(Step.OPEN, Step.READY)

    def heard_commit(self) -> None:
        """Only after that may the guest be started; MigrationError where it must not be, because
        it was already, or the record was closed before."""
        self._step(Step.READY, Step.COMMITTED)

    def _step(self, old: Step, new: Step) -> None:
        if not self._record.change(old, new):
            raise MigrationError("the record of this session was closed")

    def started(self) -> None:
        """The guest was started."""
        self._record.change(Step.COMMITTED, Step.STARTED)

    def refuse(self, reason: str) -> None:
        """It was not started, for certain, and will not be."""
        for step in (Step.OPEN, Step.READY, Step.COMMITTED):
            if self._record.change(step, Step.NOT_STARTED, reason):
                return
