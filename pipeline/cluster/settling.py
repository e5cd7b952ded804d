"""What a host can say, and put right, of an attempt whose ends leave open where the guest is.

Three questions, each of which may be asked again: is the source over, and has it left a result?
What is the last word of the destination, closed so that no other follows? To the source: that word.
"""

import os
import signal
from time import monotonic, sleep

from pipeline.cluster.folder import EndFolder
from pipeline.cluster.launching import LOOK_S, reap
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

OVER_S = 30.0
"""For a source that is told to end; one that is past its commit waits for its answer."""


def end_of_source(token: str) -> Result | None:
    """See that the source is over; the result that it left. MigrationError where it goes on."""
    folder, until = EndFolder(token, "source"), monotonic() + OVER_S
    process = folder.maybe_process()
    if process is not None and process.is_alive:
        os.kill(process.pid, signal.SIGTERM)
    while process is not None and process.is_alive:
        reap()
        if monotonic() > until:
            raise MigrationError(f"the source, process {process.pid}, does not end")
        sleep(LOOK_S)
    return folder.maybe_result()


def last_word(token: str) -> bytes | None:
    """At the destination: its record, closed; None where no guest ever came. MigrationError where
    nobody can say yet."""
    EndFolder(token, "destination").forbid()
    for session in _sessions(token, "destination"):
        with settling():
            record = find_record(session, "destination")
            try:
                return encode_record(close_destination(record))
            finally:
                record.close()
    return None


def settle_source(token: str, word: bytes | None) -> str:
    """At the source: its guest goes on, or is given up, as the destination's last word says; what
    was done."""
    for session in _sessions(token, "source"):
        with settling():
            record = find_record(session, "source")
            try:
                if record.step is Step.INTENT:
                    return _resolved(record, word)
            finally:
                record.close()
    cleanup()
    return "nothing was open"


def _resolved(record: SessionRecord, word: bytes | None) -> str:
    if word is None:
        raise MigrationError("the destination has no record of a guest that was given to it")
    return resolve(record, decode_record(word, "the destination's record"))


def arrived(word: bytes | None) -> bool:
    """Whether the destination's last word is that the guest runs there."""
    return word is not None and decode_record(word, "the record").step is Step.STARTED


def _sessions(token: str, role: Role) -> list[str]:
    """Of the attempt, by the name that its guest has in it."""
    found: list[Record] = [one.record for one in records()]
    return [one.session for one in found if one.role == role and one.name.endswith(f".{token}")]


def steer(token: str, bandwidth: int) -> bool:
    """Give a source that runs another share of the link, bytes/s; whether it took it."""
    try:
        with MonitorClient(EndFolder(token, "source").qmp) as client:
            client.execute("migrate-set-parameters", {"max-bandwidth": bandwidth})
    except (OSError, MigrationError, ValueError):
        return False
    return True
