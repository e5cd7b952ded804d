"""What becomes of the record of an end whose command is gone: the rules, one end at a time.

A guest goes on at the source only where no intent is on record, or the destination's closed
record says that it did not start there. A record is removed when nobody can ask for it.
"""

from time import monotonic, sleep

from pipeline.guests import wire
from pipeline.leftovers.undo import ask_guest, guest_session, undo
from pipeline.records.processes import Process
from pipeline.records.record import (
    AnyQemuEffect,
    ChangedQemu,
    LoadedQemu,
    MadeFile,
    Record,
    SlowedThreads,
)
from pipeline.records.store import SessionRecord
from protocol.commit import Step
from protocol.errors import GuestError, MigrationError

DEATH_SECONDS = 3.0
"""A guest that its command started ends when the command is gone: some ms, on a busy machine."""


class Unanswered(MigrationError):
    """The guest was given away, and nobody knows whether it runs at the destination."""


def settle_source(session: SessionRecord) -> str:
    """Do what the step of a source's record allows; what that was, in a few words.

    Unanswered where that is nothing, until the destination's record is at hand.
    """
    record = session.record
    if record.step is Step.INTENT:
        raise Unanswered(
            "nobody knows yet whether the guest runs at the destination: see `resolve --help`"
        )
    if record.step is Step.GIVEN:
        if record.socket is not None and record.guest is not None and record.guest.is_alive:
            ask_guest(record.guest, record.socket, wire.Leave())
        for effect in record.effects:
            if isinstance(effect, ChangedQemu | SlowedThreads):
                undo(effect)
        session.remove()
        return "the guest was given away"
    undo_effects(session)
    session.remove()
    if record.guest is not None and not record.guest.is_alive:
        return "the guest has ended: it runs nowhere"
    return "the guest goes on here"


def undo_effects(session: SessionRecord) -> None:
    """Undo, once, what a session that is over did to others; what a guest is in stays.

    All that can be undone is, but that one who has not answered is not asked again; the first error
    is raised after that, and all of it stays on record.
    """
    failed: dict[Process | None, GuestError] = {}
    for effect in session.record.effects:
        stays = session.step is Step.STARTED and isinstance(effect, MadeFile | LoadedQemu)
        of = effect.qemu if isinstance(effect, AnyQemuEffect) else None
        if not stays and (of is None or of not in failed):
            try:
                undo(effect)
            except GuestError as error:
                failed.setdefault(of, error)
    if failed:
        raise next(iter(failed.values()))
    session.forget_effects()


def close_destination(session: SessionRecord) -> Record:
    """The record, closed: whether the guest was started, or never will be.

    What a dead command did to others is undone. MigrationError while its command is just
    starting it, or nobody can say.
    """
    while not session.record.closed:  # its command may go on, and the step with it
        if session.record.step is Step.COMMITTED:
            _settle_committed(session)
        else:
            session.change(session.record.step, Step.NOT_STARTED, "closed by resolve or cleanup")
    if session.record.effects and not session.record.in_hand:
        undo_effects(session)
    return session.record


def _settle_committed(session: SessionRecord) -> None:
    record = session.record
    if (owner := record.at_work) is not None:
        raise MigrationError(
            f"process {owner.pid} is starting the guest of session {record.session}:"
            " ask again, or end the process"
        )
    step = Step.STARTED if _has_started(record) else Step.NOT_STARTED
    session.change(Step.COMMITTED, step, "as the guest's process says")


def _has_started(record: Record) -> bool:
    """Whether the start that was asked for came to the guest, whose command is dead."""
    if record.guest is None:
        return True  # a file: nothing more was to be done
    for effect in record.effects:
        if isinstance(effect, LoadedQemu):
            from pipeline.leftovers.qemu import has_started  # its library is an extra

            return has_started(effect)
    if record.socket is not None and record.guest.is_alive:
        return guest_session(record.guest, record.socket) == record.session
    until = monotonic() + DEATH_SECONDS
    while record.guest.is_alive:
        if monotonic() > until:
            raise GuestError(f"the guest's process {record.guest.pid} does not end")
        sleep(0.01)
    return False
