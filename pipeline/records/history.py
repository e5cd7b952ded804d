"""How past migrations ended: a file beside the records, a JSON object a line, newest last.

Commands that end at once take turns at a lock. A line is written by one call, and the file is
cut by replacing it, so that whoever is killed leaves whole lines.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import structlog
from msgspec.structs import asdict, replace

from pipeline.records import store
from pipeline.records.files import content
from pipeline.records.store import HISTORY, Locked, make_state_folder, state_folder
from pipeline.result import Result
from protocol.errors import MigrationError
from protocol.session import Role

KEPT = 1_000
"""Lines, the newest ones."""
LINE_BYTES = 1 << 16
"""A result with more is kept without its rounds: some 120 bytes each, as many as there were."""
_MOST_BYTES = 2 * KEPT * LINE_BYTES
_UNREADABLE = (msgspec.MsgspecError, ValueError, RecursionError)


class Entry(Result, kw_only=True):
    """A result, when it came to be (ISO, UTC), and which end's it is."""

    ended: str
    role: Role


def keep(role: Role, result: Result) -> None:
    """Add `result`; where that cannot be it is a warning, since the guest is where it is."""
    try:
        line = _encode(role, result)
        folder = make_state_folder()
        with _turn(folder):
            _add(folder / HISTORY, line)
    except (MigrationError, OSError, ValueError) as error:
        structlog.get_logger().warning(f"the history cannot be written: {error}")


def past() -> tuple[list[Entry], int]:
    """What is kept, oldest first, and how many lines could not be read.

    MigrationError where nothing can be read.
    """
    path = state_folder() / HISTORY
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return [], 0
    except OSError as error:
        raise MigrationError(f"{path} cannot be read: {error.strerror}") from None
    try:
        lines = content(fd, str(path), _MOST_BYTES).splitlines()
    finally:
        os.close(fd)
    entries = [entry for line in lines if (entry := _maybe_entry(line)) is not None]
    return entries, len(lines) - len(entries)


def _maybe_entry(line: bytes) -> Entry | None:
    try:
        return msgspec.json.decode(line, type=Entry)
    except _UNREADABLE:
        return None


def _encode(role: Role, result: Result) -> bytes:
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    entry = Entry(ended=now, role=role, **asdict(result))
    line = msgspec.json.encode(entry)
    if len(line) > LINE_BYTES:
        line = msgspec.json.encode(replace(entry, rounds=[]))
    return line + b"\n"


@contextmanager
def _turn(folder: Path) -> Iterator[None]:
    """While this lasts nobody else writes; the lock is another file, since ours is replaced."""
    path = folder / "history.lock"
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
    try:
        with Locked(fd, path, store.LOCK_SECONDS):
            yield
    finally:
        os.close(fd)


def _add(path: Path, line: bytes) -> None:
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(path, flags, 0o600)
    try:
        before = content(fd, str(path), _MOST_BYTES)
        if before and not before.endswith(b"\n"):  # of a crash
            line = b"\n" + line
        if before.count(b"\n") < KEPT:
            _append(fd, line, len(before))
        else:
            _replace(path, before + line)
    finally:
        os.close(fd)


def _append(fd: int, line: bytes, size: int) -> None:
    """All of `line` behind the first `size` bytes, or nothing."""
    if os.write(fd, line) != len(line):
        os.ftruncate(fd, size)
        raise OSError("no room for a whole line")


def _replace(path: Path, lines: bytes) -> None:
    """The newest of `lines` in the place of what was there."""
    new = path.with_suffix(".new")
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(b"".join(lines.splitlines(keepends=True)[-KEPT:]))
        file.flush()
        os.fsync(fd)
    new.replace(path)
