"""What the engine asks of a guest, at the source and at the destination.

A guest owns its memory and its descriptors; the engine reads and writes through
them and never closes them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from pipeline.records.processes import Process
from pipeline.records.record import AnyEffect
from protocol.devices import Section


@dataclass(frozen=True)
class GuestBlock:
    """A named range of guest memory, or a disk: `pages` pages, from offset 0 of the open file `fd`;
    `what` it is, for words about it."""

    name: str
    pages: int
    fd: int
    what: str = "guest memory"


@dataclass(frozen=True)
class Mapping:
    """Where a process has block number `block` mapped: its pid and the address, in bytes."""

    block: int
    pid: int
    address: int


@dataclass(frozen=True)
class GuestStatistics:
    """What a guest tells of itself; None where it cannot.

    `dirty_rate` is bytes of pages dirtied a second since the last time it was asked,
    `gap_ms` the time between its last stamp at the source and its first here.
    """

    dirty_rate: float | None = None
    gap_ms: float | None = None


class Throttle(Protocol):
    """Takes processor time from a guest that writes faster than its pages travel: auto-converge.

    A guest that is stopped has all of it back.
    """

    how: str
    """By what it is done, for the result."""

    def effects(self) -> tuple[AnyEffect, ...]:
        """What to keep on record before the first `take`."""
        ...

    def take(self, percent: int) -> None:
        """Let its processors have so much less time from now on; GuestError where that fails."""
        ...

    def release(self) -> None:
        """They have all of it again; GuestError where that fails. Idempotent."""
        ...


class SourceGuest(Protocol):
    """A guest that is to leave. GuestError where it does not do what it is asked."""

    kind: str
    name: str
    blocks: list[GuestBlock]
    can_stop: bool
    """False for a quiet file, whose writer nobody knows."""
    socket: str | None
    """Where a synthetic guest that lives on its own answers."""
    machine: str
    """What has to wait for it at the other end; "" where anything does."""

    def why_not_movable(self) -> str | None:
        """Why it cannot be moved now: its state cannot be saved, or its memory is not `blocks` any
        more; None where it can."""
        ...

    @property
    def process(self) -> Process | None:
        """The process that is the guest; None for a file without a known writer."""
        ...

    def effects(self, run_state: str) -> tuple[AnyEffect, ...]:
        """What to keep on record before one in `run_state` is stopped, so that others can undo it;
        nothing where the guest ends with us."""
        ...

    def throttles(self) -> Sequence[Throttle]:
        """Ways to slow it down, the best one first; asked once, when it is to be."""
        ...

    def tell_session(self, session: str | None) -> None:
        """Let it know which migration it is in, where it can be told; None: in none any more."""
        ...

    def arm(self) -> list[Mapping]:
        """Register the memory for asynchronous write-protection; empty where it cannot.

        After this, PAGEMAP_SCAN on each mapping tells which pages were written.
        """
        ...

    def disarm(self) -> None:
        """The migration is over: undo `arm`, where that is not the guest's own business."""
        ...

    def why_not_armed(self) -> str:
        """The reason, where `arm` answered with nothing."""
        ...

    def why_no_uffd(self) -> str | None:
        """Why `arm` would answer with nothing, as far as looking tells; None where it would not."""
        ...

    def untracked_changes(self) -> list[str]:
        """Why its memory may change without `arm` noticing; other processes are not counted."""
        ...

    def is_dead(self) -> bool:
        """Whether its process is seen to have ended, so that it runs nowhere."""
        ...

    def run_state(self) -> str:
        """Running or paused."""
        ...

    def stop(self) -> str:
        """Stop it; the run state that it had ("running" or "paused"). Idempotent."""
        ...

    def check_stopped(self) -> None:
        """GuestError where it does not stand still any more, though nobody here let it go on."""
        ...

    def resume(self) -> None:
        """Undo `stop`: it runs again if it ran before. Idempotent."""
        ...

    def pause(self) -> None:
        """Let it stand still because its user wants it: `stop` then finds it paused. Idempotent."""
        ...

    def go_on(self) -> None:
        """Let it run because its user wants it. Idempotent."""
        ...

    def leave(self) -> None:
        """It was given away while it was stopped: it must not run here again."""
        ...

    def save_devices(self) -> list[Section]:
        """The state beside its memory, while it is stopped."""
        ...

    def statistics(self) -> GuestStatistics:
        """What it reached since the last call."""
        ...

    def close(self) -> None:
        """End what was started for this migration; a guest that we did not start lives on."""
        ...


class ArrivingGuest(Protocol):
    """A guest that is to be filled."""

    blocks: list[GuestBlock]
    checks_itself: bool
    """Whether `self_check` knows what its memory has to be."""

    @property
    def process(self) -> Process | None:
        """The process that will be the guest; None where nothing will run."""
        ...

    def load_devices(self, sections: list[Section]) -> None:
        """Take the device state that arrived; the guest stays paused."""
        ...

    def begin(self, session: str, *, run: bool) -> bool:
        """It has arrived for good, in `session`: let it run, or keep it paused. Whether it runs."""
        ...

    def announce(self) -> None:
        """It runs here now: tell the network, where it has one."""
        ...

    def run_state(self) -> str:
        """Running or paused."""
        ...

    def pause(self) -> None:
        """Let it stand still, once it is here, because its user wants it. Idempotent."""
        ...

    def go_on(self) -> None:
        """Let it run, once it is here, because its user wants it. Idempotent."""
        ...

    def is_dead(self) -> bool:
        """Whether its process is seen to have ended, so that it certainly does not run."""
        ...

    def self_check(self, meanwhile: Callable[[], object] = ...) -> str | None:
        """None when its memory is right, else what is wrong. `meanwhile` is called while that is
        waited for, and must ask it nothing."""
        ...

    def statistics(self) -> GuestStatistics:
        """What it tells of itself."""
        ...

    def close(self) -> None:
        """End what was started for this migration; a guest that we did not start lives on."""
        ...
