"""Whose the guest is, as the destination knows it: made, started or refused, and each of it on
record before it is done.

Invariant: the guest is started once, and only after a commit that is on record.
"""

from collections.abc import Callable
from contextlib import suppress
from time import monotonic_ns

import structlog

from pipeline.destination.arriving_disks import Flushing, Made
from pipeline.guests.base import ArrivingGuest
from pipeline.guests.disks import ArrivingDisk
from pipeline.leftovers.settling import undo_effects
from pipeline.records.processes import this_process
from pipeline.records.record import BoundSockets, Record
from pipeline.records.store import SessionRecord, create_record
from protocol.commit import DestinationCommit
from protocol.control import Hello, Started
from protocol.errors import GuestError, MigrationError


class Custody:
    """The guest of one session, and its record; owned by the receiver's thread.

    `make_guest` makes the guest that the source's hello describes; it is the caller's, who also
    closes it. What that does to others it adds to the record. `make_disks` does the same for disks,
    which are ours.
    """

    def __init__(
        self,
        make_guest: Callable[[Hello, SessionRecord], ArrivingGuest],
        make_disks: Made,
    ) -> None:
        self._make_guest = make_guest
        self._make_disks = make_disks
        self.guest: ArrivingGuest | None = None
        self.disks: list[ArrivingDisk] = []
        self._is_abandoned = False
        self._flushing = Flushing()
        self._record: SessionRecord | None = None
        self._commit: DestinationCommit | None = None
        self._was_ready = False
        self.begun = False
        """Whether the guest was asked to start, and is not known to be dead."""
        self.runs_here = False

    def open(self, name: str, session: bytes, sockets: tuple[str, ...]) -> None:
        """Put the session on record, and the `sockets` that it binds; MigrationError where that
        cannot be."""
        first = Record(
            session=session.hex(),
            role="destination",
            name=name,
            owner=this_process(),
            effects=(BoundSockets(sockets),),
        )
        self._record = create_record(first)
        self._commit = DestinationCommit(self._record)

    def make(self, hello: Hello) -> None:
        """Make the guest, and its disks; this may take long."""
        assert self._record is not None
        self.guest = self._make_guest(hello, self._record)
        self.disks = self._make_disks(hello, self._record, self._check_wanted)

    def abandon(self) -> None:
        """What `make` is about is not wanted any more; it ends soon, with an error."""
        self._is_abandoned = True

    def _check_wanted(self) -> None:
        if self._is_abandoned:
            raise MigrationError("the migration has ended")

    def check(self) -> None:
        """GuestError where the guest that is being filled has ended."""
        if self.guest is not None and not self.begun and self.guest.is_dead():
            raise GuestError("the guest that is being filled has ended")

    def flush_soon(self) -> None:
        """Have what is here of disks written out meanwhile."""
        self._flushing.begin(self.disks)

    def flush(self) -> None:
        """Have all that is here of disks written out; GuestError where that fails."""
        for disk in self.disks:
            disk.flush()
            disk.check_place()

    def ready(self) -> None:
        """Keep that all of it is here; MigrationError where somebody has closed the record."""
        assert self._commit is not None
        self._commit.get_ready()
        self._was_ready = True

    def begin(self, *, run: bool) -> Started:
        """Start the guest, after the commit, or keep it paused; what to answer.

        MigrationError where somebody has closed the record, and nothing is started.
        """
        assert self._commit is not None
        self._commit.heard_commit()
        self._start(run=run)
        started_ns = monotonic_ns()
        try:
            self._commit.started()
        except MigrationError as error:  # it is true all the same
            structlog.get_logger().warning(f"{error}; the guest runs here")
        return Started(since_ms=(monotonic_ns() - started_ns) / 1e6, running=self.runs_here)

    def _start(self, *, run: bool) -> None:
        """One that does not start is ended where it is ours, so that it certainly does not run."""
        assert self.guest is not None
        assert self._record is not None
        self.begun = True
        try:
            self.runs_here = self.guest.begin(self._record.record.session, run=run)
        except GuestError:
            self.guest.close()
            self.begun = not self.guest.is_dead()
            raise

    def announce(self) -> None:
        """Let the network know of a guest that runs here; it runs all the same where that fails."""
        if self.guest is not None and self.runs_here:
            with suppress(GuestError):
                self.guest.announce()

    def refuse(self, reason: str) -> bool:
        """Keep that the guest does not run here, if that is certain: it was never asked to start,
        or is dead. Whether it is."""
        if self._commit is None or self.begun:
            return False
        with suppress(MigrationError):  # it is true all the same
            self._commit.refuse(reason)
        return True

    def close(self, *, settled: bool) -> None:
        """Undo what a guest that did not come has cost; forget the session, unless the source
        may have to ask: not when it is `settled`, or was never told that all is here. Idempotent.
        """
        for disk in self.disks:
            disk.close()
        record, self._record = self._record, None
        if record is None:
            return
        undone = self.begun or self._undo(record)
        if undone and (settled or not self._was_ready):
            with suppress(MigrationError):  # it stays, and changes nothing
                record.remove()
        record.close()

    def _undo(self, record: SessionRecord) -> bool:
        """Undo all that was done to others for a guest that did not come. Whether that worked."""
        if self.guest is not None:
            self.guest.close()  # whoever undoes what was done to it has to reach it
        try:
            undo_effects(record)
        except MigrationError as error:  # or a disk that is full
            structlog.get_logger().warning(f"{error}; `pageferry cleanup` goes on from here")
            with suppress(MigrationError):
                record.let_go()
            return False
        return True
