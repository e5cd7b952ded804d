"""Puts right what commands that were killed have left: guests, files, folders, records."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec

from pipeline.leftovers.settling import Unanswered, close_destination, settle_source
from pipeline.records.files import read_small, unfinished
from pipeline.records.processes import OWNER, Process
from pipeline.records.record import Record
from pipeline.records.store import (
    SessionRecord,
    create_record,
    records,
    settling,
    state_folder,
)
from protocol.commit import Step
from protocol.errors import GuestError, MigrationError

KEPT_FOR = timedelta(days=30)
"""How long a closed record is kept for a source that was off meanwhile, and has to ask."""


def cleanup() -> tuple[list[str], bool]:
    """Put right all that can be; what was done, a line each, and whether nothing is left to do.

    What belongs to a command that lives is left alone.
    """
    said: list[str] = []
    whole = True
    try:
        for session in records():
            with settling():  # for each anew: others wait no longer than for one that hangs
                session.look_again()
                if not session.record.in_hand and session.exists:
                    whole = _clean(session, said) and whole
    except MigrationError as error:  # what cannot be read
        said.append(str(error))
        whole = False
    return [*said, *_remove_unfinished(), *_remove_folders()], whole


def _clean(session: SessionRecord, said: list[str]) -> bool:
    """Put one session right and say so; whether nothing is left of it to be decided."""
    record, done = session.record, True
    try:
        words = settle(session)
    except (MigrationError, OSError, ValueError) as error:
        words, done = str(error), False
    if words:
        said.append(f"{record.session} ({record.role}, {record.name}): {words}")
    return done


def settle(session: SessionRecord) -> str | None:
    """Do with the record of an end whose command is dead what it allows; what that was."""
    record = session.record
    if record.role == "source":
        return settle_source(session)
    closed = close_destination(session)
    if record.closed and not record.effects:
        return _forget(session)
    if closed.step is Step.STARTED:
        return "the guest was started here"
    if record.closed:
        return "what it had done was undone"
    if record.step is Step.OPEN:
        session.remove()
    return "the guest that was on its way was given up"


def _forget(session: SessionRecord) -> str | None:
    if datetime.now(UTC) - session.record.changed < KEPT_FOR:
        return None
    session.remove()
    return "its closed record was removed: nobody has asked for it"


def clear_way(concerns: Callable[[Record], bool]) -> None:
    """Before a guest migrates, or memory lands: put right what earlier migrations have left of it.

    `concerns` tells by a record whether it is of that guest, or memory. GuestError where it is
    just being migrated, or was given away and nobody knows whether it runs there.
    """
    with cleared(concerns):
        pass


@contextmanager
def cleared(concerns: Callable[[Record], bool]) -> Iterator[None]:
    """As `clear_way`; while this lasts nobody else's way is cleared."""
    with settling():
        for session in records():
            record = session.record
            if not concerns(record) or _is_over(record):
                continue
            if (owner := record.at_work) is not None:
                raise GuestError(f"process {owner.pid} migrates that guest: {record.session}")
            try:
                settle(session)
            except Unanswered:
                raise GuestError(
                    f"the guest was given away in session {record.session}, and nobody knows"
                    f" whether it runs there: `pageferry resolve {record.session}` at the"
                    " destination, then here"
                ) from None
        yield


def claim(first: Record) -> SessionRecord:
    """Put a source on record, if nobody else has its guest; of two at a time one does."""
    guest = first.guest
    with cleared(lambda earlier: guest is not None and earlier.guest == guest):
        return create_record(first)


def _is_over(record: Record) -> bool:
    """Whether the guest has arrived, or nothing is to be undone of one that has not."""
    return record.step is Step.STARTED or (record.step is Step.NOT_STARTED and not record.effects)


def _remove_unfinished() -> list[str]:
    """Records that were not there yet when their command was killed: nothing was done by them."""
    said = []
    for path in unfinished(state_folder()):
        with suppress(OSError):
            path.unlink()
            said.append(f"{path}: removed")
    return said


def _remove_folders() -> list[str]:
    """The temporary folders of commands that are dead."""
    said = []
    for owner in Path(tempfile.gettempdir()).glob(f"pageferry-*/{OWNER}"):
        with suppress(OSError, MigrationError, msgspec.DecodeError):
            if not msgspec.json.decode(read_small(owner), type=Process).is_alive:
                shutil.rmtree(owner.parent)
                said.append(f"{owner.parent}: removed")
    return said
