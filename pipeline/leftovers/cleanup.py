"""Puts right what commands that were killed have left: guests, files, folders, records."""

import os
import re
import shutil
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil

from pipeline.leftovers.settling import close_destination, settle_source
from pipeline.leftovers.undo import undo
from pipeline.records.record import MadeFile, Record
from pipeline.records.store import SessionRecord, records
from protocol.commit import Step
from protocol.errors import GuestError, MigrationError

KEPT_FOR = timedelta(days=30)
"""How long a closed record is kept for a source that was off meanwhile, and has to ask."""
_FOLDER = re.compile(r"pageferry-(\d+)-")


def cleanup() -> tuple[list[str], bool]:
    """Put right all that can be; what was done, a line each, and whether nothing is left to do.

    What belongs to a command that lives is left alone.
    """
    said, whole = [], True
    for session in records():
        record = session.record
        if record.owner.is_alive:
            continue
        try:
            words = settle(session)
        except MigrationError as error:
            words, whole = str(error), False
        if words:
            said.append(f"{record.session} ({record.role}, {record.name}): {words}")
            whole = whole and not (record.role == "source" and record.step is Step.INTENT)
    return [*said, *_remove_folders()], whole


def settle(session: SessionRecord) -> str | None:
    """Do with the record of an end whose command is dead what it allows; what that was."""
    record = session.record
    if record.role == "source":
        return settle_source(session)
    if record.closed:
        return _forget(session)
    closed = close_destination(session)
    for effect in closed.effects:
        if closed.step is not Step.STARTED or not isinstance(effect, MadeFile):
            undo(effect)
    if closed.step is Step.STARTED:
        return "the guest was started here"
    if record.step is Step.OPEN:
        session.remove()
    return "the guest that was on its way was given up"


def _forget(session: SessionRecord) -> str | None:
    if datetime.now(UTC) - datetime.fromisoformat(session.record.changed) < KEPT_FOR:
        return None
    session.remove()
    return "its closed record was removed: nobody has asked for it"


def clear_way(is_guest: Callable[[Record], bool]) -> None:
    """Before a guest migrates: put right what an earlier migration of it has left.

    `is_guest` tells by a source's record whether it is of that guest. GuestError where it is
    just being migrated, or was given away and nobody knows whether it runs there.
    """
    for session in records():
        record = session.record
        if record.role != "source" or not is_guest(record):
            continue
        if record.owner.is_alive:
            raise GuestError(f"process {record.owner.pid} migrates this guest: {record.session}")
        if record.step is Step.INTENT:
            raise GuestError(
                f"the guest was given away in session {record.session}, and nobody knows whether it"
                f" runs there: `pageferry resolve {record.session}` at the destination, then here"
            )
        settle_source(session)


def _remove_folders() -> list[str]:
    """The temporary folders of commands that are dead."""
    said = []
    for path in Path(tempfile.gettempdir()).glob("pageferry-*"):
        found = _FOLDER.match(path.name)
        if found and path.is_dir() and path.stat().st_uid == os.getuid():
            if _is_in_use(int(found[1]), path):
                continue
            shutil.rmtree(path, ignore_errors=True)
            said.append(f"{path}: removed")
    return said


def _is_in_use(pid: int, folder: Path) -> bool:
    """Whether the process that made `folder` lives; one that began after it is another one."""
    try:
        return psutil.Process(pid).create_time() <= folder.stat().st_mtime + 1
    except (psutil.NoSuchProcess, FileNotFoundError):
        return False
