"""Whose the guest is, as the source knows it: stopped, given away or taken back, and each of it
on record before it is done.

Invariant: from the intent on the guest goes on here only after a definite no.
"""

from collections.abc import Callable
from contextlib import suppress

import structlog

from pipeline.guests.base import SourceGuest
from pipeline.leftovers.cleanup import claim
from pipeline.logs import log_if_unexpected
from pipeline.records.processes import this_process
from pipeline.records.record import AnyEffect, Record
from pipeline.records.store import SessionRecord
from pipeline.result import GuestAlive
from pipeline.source.slowing import Slowing
from protocol.commit import SourceCommit, Step
from protocol.errors import GuestError, MigrationError


class Custody:
    """The guest of one session, and its record; owned by the coordinator's thread.

    `stays`: it is not given away but saved, and paused then; nobody else can start it.
    """

    def __init__(
        self, guest: SourceGuest, name: str, session: bytes, *, stays: bool = False
    ) -> None:
        self._guest = guest
        self._name = name
        self._session = session.hex()
        self._stays = stays
        self._record: SessionRecord | None = None
        self._commit: SourceCommit | None = None
        self._run_state: str | None = None
        self._dead = False
        self._is_unfinished = False
        self.slowing = Slowing(guest, self._keep, self._drop)

    def open(self) -> None:
        """Put the session on record; MigrationError where that cannot be."""
        first = Record(
            session=self._session,
            role="source",
            name=self._name,
            owner=this_process(),
            guest=self._guest.process,
            socket=self._guest.socket,
        )
        self._record = claim(first)
        self._commit = SourceCommit(self._record)

    @property
    def alive(self) -> GuestAlive | None:
        """Where the guest runs, as far as is known; None where nothing runs any more."""
        if self._dead:
            return "none"
        where = self._commit.guest if self._commit else "source"
        return None if where == "destination" and self._guest.kind == "file" else where

    def _keep(self, effect: AnyEffect) -> None:
        """Put on record what is about to be done."""
        assert self._record is not None
        self._record.add(effect)

    def _drop(self, effect: AnyEffect) -> None:
        """Take an effect that is undone off the record."""
        if self._record is not None:
            with suppress(MigrationError):  # to undo it once more does no harm
                self._record.drop(effect)

    def stop(self, before_stop: Callable[[], object] = lambda: None) -> str:
        """Put on record what is about to be done, call `before_stop`, stop the guest; the run state
        that it had."""
        self._run_state = self._guest.run_state()
        for effect in self._guest.effects(self._run_state):
            self._keep(effect)
        before_stop()
        self._run_state = self._guest.stop()
        return self._run_state

    def check(self) -> None:
        """GuestError where the guest has ended, before it was given away."""
        process = self._guest.process
        if process is not None and self.alive == "source" and self._guest.is_dead():
            raise GuestError(f"{self._guest.name} is gone: process {process.pid} ended")

    def intend(self) -> None:
        """Keep that the guest is about to be given away."""
        assert self._commit is not None
        if self._stays:
            return
        self._commit.intend()

    def given(self) -> bool:
        """It runs at the destination: never again here; or it is saved, and stands still. Whether
        that could be kept."""
        assert self._commit is not None
        if self._stays:
            with suppress(GuestError):  # from now on it stands still because its user wants it
                self._guest.pause()
            return True
        kept = True
        try:
            self._commit.given()
        except MigrationError as error:
            structlog.get_logger().warning(f"{error}; the guest runs at the destination")
            kept = False
        return kept

    def leave(self) -> None:
        """Let the guest that was given away know that it never runs here again."""
        with suppress(GuestError):  # it is on record
            self.slowing.release()
        if self._stays:
            return
        try:
            self._guest.leave()
        except GuestError as error:
            structlog.get_logger().warning(
                f"{error}: it stands still here for good, and may be ended"
            )

    def refused(self) -> None:
        """It certainly does not run at the destination."""
        assert self._commit is not None
        with suppress(MigrationError):  # it is true all the same
            self._commit.refused()

    def take_back(self) -> bool:
        """Let the guest run again if it ran and is ours; what went wrong first is the reason.

        Whether it runs again. One that hangs hears it when it comes to, or from `cleanup`.
        """
        why = self._why_not(self.slowing.release)
        if self.alive != "source":
            return False
        if self._run_state is not None:
            why = self._why_not(self._guest.resume) or why
        self._dead = self._guest.is_dead()
        self._is_unfinished = why is not None and not self._dead
        runs = self._run_state == "running" and not self._dead and self._seems_to_run(why)
        if self._is_unfinished:
            where = "the guest runs" if runs else "the guest may stand still"
            structlog.get_logger().warning(f"{why}: {where}; `pageferry cleanup` undoes the rest")
        return runs

    def _why_not(self, do: Callable[[], object]) -> str | None:
        """What went wrong, whatever it is: the guest may stand still, or be slow."""
        try:
            do()
        except Exception as error:
            log_if_unexpected(error)
            return str(error)
        return None

    def _seems_to_run(self, why: str | None) -> bool:
        """Whether it does, though `why` was said when it was to."""
        if why is None:
            return True
        with suppress(GuestError):
            return self._guest.run_state() == "running"
        return False

    def close(self) -> None:
        """Let go of the record; it stays where somebody has to ask for it, or to let the guest go
        on. Idempotent."""
        record, self._record = self._record, None
        if record is None:
            return
        with suppress(MigrationError):  # a disk that is full
            if self._is_unfinished:
                record.let_go()
            elif record.step is not Step.INTENT or self.alive == "source":
                record.remove()
        record.close()
