"""What a host can say, and put right, of an attempt whose ends leave open where the guest is.

Three questions, each of which may be asked again: is the source over, and what has it left? What
is the last word of the destination, closed so that no other follows? To the source: that word.
"""

import os
import signal
from time import monotonic, sleep

from msgspec import Struct

from pipeline.cluster.folder import EndFolder
from pipeline.cluster.launching import LOOK_S, reap
from pipeline.cluster.waiting import has_come
from pipeline.leftovers.cleanup import cleanup
from pipeline.leftovers.resolve import resolve
from pipeline.leftovers.settling import close_destination
from pipeline.monitor.client import MonitorClient
from pipeline.records.record import Record, decode_record, encode_record
from pipeline.records.store import SessionRecord, find_record, records, settling
from pipeline.result import Result
from protocol.commit import Step
from protocol.errors import MigrationError
from protocol.session import Role
from protocol.status import Status

OVER_S = 30.0
"""For a source that is told to end; one that is past its commit waits for its answer."""


class Left(Struct, frozen=True):
    """What a source that is over has left: its result, and how far its record says that it came.
    Neither: it was killed before it made one, or after the end of all, when nobody can ask."""

    result: Result | None = None
    step: Step | None = None


class Word(Struct, frozen=True):
    """The last one of a destination: its record, closed, where it has one; whether it has the
    guest."""

    record: bytes | None
    has_come: bool


def end_of_source(token: str) -> Left:
    """See that the source is over; what it left. MigrationError where it goes on."""
    folder, until = EndFolder(token, "source"), monotonic() + OVER_S
    folder.forbid()
    process = folder.maybe_process()
    if process is not None and process.is_alive:
        os.kill(process.pid, signal.SIGTERM)
    while process is not None and process.is_alive:
        reap()
        if monotonic() > until:
            raise MigrationError(f"the source, process {process.pid}, does not end")
        sleep(LOOK_S)
    steps = [one.record.step for one in records() if _is_of(one.record, token, "source")]
    return Left(folder.maybe_result(), steps[0] if steps else None)


def last_word(token: str) -> Word:
    """At the destination: by its record, its result, or what waited for the guest. MigrationError
    where nobody can say yet."""
    folder = EndFolder(token, "destination")
    folder.forbid()
    for session in _sessions(token, "destination"):
        with settling():
            record = find_record(session, "destination")
            try:
                closed = close_destination(record)
                return Word(encode_record(closed), closed.step is Step.STARTED)
            finally:
                record.close()
    if (result := folder.maybe_result()) is not None:
        return Word(None, result.status is Status.COMPLETED)
    return Word(None, has_come(folder))


def settle_source(token: str, word: bytes | None) -> bool:
    """At the source: its guest goes on, or is given up, as the destination's last word says.
    Whether it lives, as far as that is on record. MigrationError where that cannot be yet."""
    guests = [one.record.guest for one in records() if _is_of(one.record, token, "source")]
    for session in _sessions(token, "source"):
        with settling():
            record = find_record(session, "source")
            try:
                if record.step is Step.INTENT:
                    _resolve(record, word)
            finally:
                record.close()
    cleanup()
    if _sessions(token, "source"):
        raise MigrationError("what the source did to its guest cannot be undone yet")
    return all(guest is None or guest.is_alive for guest in guests)


def _resolve(record: SessionRecord, word: bytes | None) -> None:
    if word is None:
        raise MigrationError("the destination has no record of a guest that was given to it")
    resolve(record, decode_record(word, "the destination's record"))


def _sessions(token: str, role: Role) -> list[str]:
    """Of the attempt."""
    return [one.record.session for one in records() if _is_of(one.record, token, role)]


def _is_of(record: Record, token: str, role: Role) -> bool:
    """By the name that the guest has in the attempt."""
    return record.role == role and record.name.endswith(f".{token}")


def steer(token: str, bandwidth: int) -> bool:
    """Give a source that runs another share of the link, bytes/s; whether it took it."""
    try:
        with MonitorClient(EndFolder(token, "source").qmp) as client:
            client.execute("migrate-set-parameters", {"max-bandwidth": bandwidth})
    except (OSError, MigrationError, ValueError):
        return False
    return True
