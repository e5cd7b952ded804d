"""Where a commit was left without an answer: the destination's record is closed and carried to
the source, which then knows whether its guest may go on."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.leftovers.settling import close_destination, settle_source
from pipeline.records.files import read_small
from pipeline.records.record import Record, decode_record
from pipeline.records.store import (
    SessionRecord,
    find_record,
    has_record,
    is_session,
    settling,
    state_folder,
)
from protocol.commit import Step
from protocol.errors import ConfigError, MigrationError
from protocol.session import Role


def resolve_destination(session: str) -> Record:
    """The destination's record, closed: a later commit is answered by it.

    MigrationError where there is none, or nobody can say yet.
    """
    with _record(session, "destination") as record:
        return close_destination(record)


def resolve_source(session: str, peer_record: Path) -> str:
    """Let the source's guest go on, or give it up, as the destination's closed record says.

    MigrationError for a record that does not say, and where there is nothing to resolve.
    """
    with _record(session, "source") as record:
        return resolve(record, _peer_record(peer_record, session))


def resolve(record: SessionRecord, peer: Record) -> str:
    """As `resolve_source`, where the closed record of the other end is at hand."""
    if (owner := record.record.at_work) is not None:
        raise MigrationError(f"process {owner.pid} is at work on this session")
    step = Step.GIVEN if peer.step is Step.STARTED else Step.KEPT
    if record.step is Step.OPEN:
        raise MigrationError("the guest was never given away: `pageferry cleanup` lets it go on")
    record.change(Step.INTENT, step, f"the destination's record says {peer.step}")
    return settle_source(record)


def _peer_record(path: Path, session: str) -> Record:
    try:
        record = decode_record(read_small(path), str(path))
    except OSError as error:
        raise ConfigError(f"--peer-record: {path}: {error.strerror}") from None
    if (record.session, record.role) != (session, "destination"):
        raise MigrationError(f"{path} is the {record.role}'s record of session {record.session}")
    if not record.closed:
        raise MigrationError(
            f"{path} is not closed: it must come from `pageferry resolve` at the destination"
        )
    return record


@contextmanager
def _record(session: str, role: Role) -> Iterator[SessionRecord]:
    """The record, while nobody else settles it; ConfigError for what is no session."""
    if not is_session(session):
        raise ConfigError(f"SESSION: found {session!r}, expected 32 hexadecimal digits")
    with settling():
        record = _find(session, role)
        try:
            yield record
        finally:
            record.close()


def _find(session: str, role: Role) -> SessionRecord:
    """The record; what to do where there is only the other end's, or none."""
    if has_record(session, role):
        return find_record(session, role)
    if has_record(session, "source"):
        raise MigrationError(
            f"session {session} left from here: --peer-record FILE is needed, what"
            f" `pageferry resolve {session}` printed at the destination"
        )
    raise MigrationError(
        f"no record of session {session} ({role}) in {state_folder()}: it was settled,"
        " or belongs to another machine or user"
    )
