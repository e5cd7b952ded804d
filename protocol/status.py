"""The status of a migration: a literal table, changed by compare-and-swap alone.

Names and rules are docs/wire-format.md's, which are QEMU's MigrationStatus.
"""

from collections.abc import Callable
from enum import StrEnum


class Status(StrEnum):
    """Where a migration stands."""

    NONE = "none"
    SETUP = "setup"
    ACTIVE = "active"
    PRE_SWITCHOVER = "pre-switchover"
    DEVICE = "device"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"


_S = Status
TRANSITIONS: dict[Status, frozenset[Status]] = {
    _S.NONE: frozenset({_S.SETUP}),
    _S.SETUP: frozenset({_S.ACTIVE, _S.FAILED, _S.CANCELLING}),
    _S.ACTIVE: frozenset({_S.PRE_SWITCHOVER, _S.DEVICE, _S.FAILED, _S.CANCELLING}),
    _S.PRE_SWITCHOVER: frozenset({_S.DEVICE, _S.FAILED, _S.CANCELLING}),
    _S.DEVICE: frozenset({_S.COMPLETED, _S.FAILED}),
    _S.CANCELLING: frozenset({_S.CANCELLED}),
    _S.COMPLETED: frozenset({_S.SETUP}),
    _S.FAILED: frozenset({_S.SETUP}),
    _S.CANCELLED: frozenset({_S.SETUP}),
}

INCOMING_TRANSITIONS: dict[Status, frozenset[Status]] = {
    **{status: frozenset() for status in Status},
    _S.NONE: frozenset({_S.SETUP}),
    _S.SETUP: frozenset({_S.ACTIVE, _S.FAILED, _S.CANCELLED}),
    _S.ACTIVE: frozenset({_S.COMPLETED, _S.FAILED, _S.CANCELLED}),
}
"""The incoming side: setup once a URI is taken, then active, then an end."""

FINISHED = frozenset({_S.COMPLETED, _S.FAILED, _S.CANCELLED})

Notifier = Callable[[Status], None]


class StatusMachine:
    """The status and those who want to hear of its changes.

    A notifier is called with the new status, before the migration's own work in
    that state begins.
    """

    def __init__(self, transitions: dict[Status, frozenset[Status]] = TRANSITIONS) -> None:
        self._transitions = transitions
        self._notifiers: list[Notifier] = []
        self.status = Status.NONE

    def notify(self, notifier: Notifier) -> None:
        """Call `notifier` after every change that took effect."""
        self._notifiers.append(notifier)

    def change(self, old: Status, new: Status) -> bool:
        """From `old` to `new`; False, and nothing happens, when `old` no longer holds.

        ValueError for a change that the table does not have: our bug.
        """
        if new not in self._transitions[old]:
            raise ValueError(f"no way from {old} to {new}")
        if self.status is not old:
            return False
        self.status = new
        for notifier in self._notifiers:
            notifier(new)
        return True

    @property
    def has_finished(self) -> bool:
        """Whether the migration has reached an end, good or bad."""
        return self.status in FINISHED

    @property
    def has_failed(self) -> bool:
        """Whether it ended without moving the guest."""
        return self.status in (Status.FAILED, Status.CANCELLED)
