"""What a host can say, and put right, of an attempt whose end left no answer."""

from typing import Any

import msgspec
from msgspec import Struct

from pipeline.cluster.folder import EndFolder
from pipeline.leftovers.cleanup import cleanup
from pipeline.leftovers.resolve import resolve, resolve_destination
from pipeline.monitor.client import MonitorClient
from pipeline.records.record import decode_record, encode_record
from pipeline.records.store import find_record, records, settling
from protocol.commit import Step
from protocol.errors import MigrationError


class Left(Struct, frozen=True):
    """Of a source that died: the session of which nobody knows yet how it ended; whether the guest
    was given away."""

    session: str | None = None
    given: bool = False


def look_at_source(token: str) -> Left:
    """Put right what can be; what is left of the attempt."""
    steps = {one.record.session: one.step for one in _of(token)}
    cleanup()
    for session, step in {one.record.session: one.step for one in _of(token)}.items():
        if step is Step.INTENT:
            return Left(session)
        steps[session] = step
    return Left(given=Step.GIVEN in steps.values())


def _of(token: str) -> list[Any]:
    return [
        one for one in records() if one.record.role == "source" and one.record.name.endswith(token)
    ]


def closed_there(session: str) -> bytes:
    """At the destination: its record, closed. MigrationError where nobody can say yet."""
    return encode_record(resolve_destination(session))


def settle_here(session: str, peer: bytes) -> str:
    """At the source: go on, or give up, as the destination's record says; what was done."""
    with settling():
        record = find_record(session, "source")
        try:
            return resolve(record, decode_record(peer, "the destination's record"))
        finally:
            record.close()


def steer(token: str, bandwidth: int) -> bool:
    """Give a source that runs another share of the link, bytes/s; whether it took it."""
    try:
        with MonitorClient(EndFolder(token, "source").qmp) as client:
            client.execute("migrate-set-parameters", {"max-bandwidth": bandwidth})
    except (OSError, MigrationError, msgspec.DecodeError):
        return False
    return True
