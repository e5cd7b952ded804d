"""Records in the state folder: a file for each end of a session, flushed before it is acted by.

A change is an appended line under the file's lock, and only where the newest line says what
the changer thinks it does. Invariant: a file is removed only when nobody can ask for it.
"""

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep

from msgspec.structs import replace

from pipeline.records.files import content, place, write
from pipeline.records.processes import Process
from pipeline.records.record import AnyEffect, Record, decode_record, encode_record
from protocol.commit import STEPS, Step
from protocol.errors import ConfigError, MigrationError
from protocol.session import Role

LOCK_SECONDS = 2.0
"""A change takes some ms; who holds the lock longer does not run."""
SETTLING_SECONDS = 10.0
"""Of one record: a guest that hangs is asked for 5 s, one that ends is waited for 3 s."""
_LOOK_AGAIN_SECONDS = 0.01
HISTORY = "history.jsonl"
"""Lies beside the records, and is none."""


def state_folder() -> Path:
    """Where records lie: XDG_STATE_HOME, or what stands for it."""
    home = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(home) / "pageferry"


def make_state_folder() -> Path:
    """The folder of the records, made if need be; ConfigError where none can be kept there."""
    folder = state_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise ConfigError(
            f"no folder {folder} for records: {error.strerror}; XDG_STATE_HOME moves it"
        ) from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigError(f"{folder} cannot be written; XDG_STATE_HOME moves it")
    return folder


class SessionRecord:
    """The record of one end, open to be changed. A Keeper of protocol.commit."""

    def __init__(self, path: Path, fd: int) -> None:
        self._path = path
        self._fd = fd
        self.record = self._newest()
        if path.name != _path(self.record.session, self.record.role).name:
            raise MigrationError(f"{path} cannot be read: it holds the record of another session")

    @property
    def step(self) -> Step:
        """The step that this end knows of."""
        return self.record.step

    def look_again(self) -> None:
        """What others have kept since it was read."""
        self.record = self._newest()

    @property
    def exists(self) -> bool:
        """Whether nobody has removed it."""
        return self._path.exists()

    def change(self, old: Step, new: Step, reason: str = "") -> bool:
        """From step `old` to `new`, for good; False where `old` does not hold any more.

        MigrationError where it cannot be written, or somebody keeps the lock.
        """
        with Locked(self._fd, self._path, LOCK_SECONDS):
            self.record = self._newest()
            if self.record.step is not old or new not in STEPS[self.record.role][old]:
                return False
            self._append(self.record.at(new, reason))
        return True

    def add(self, effect: AnyEffect) -> None:
        """Keep that `effect` is about to be had."""
        self._amend(effects=(*self.record.effects, effect))

    def drop(self, effect: AnyEffect) -> None:
        """It was undone, by who had it."""
        effects = list(self.record.effects)
        if effect in effects:
            effects.remove(effect)
            self._amend(effects=tuple(effects))

    def name_guest(self, guest: Process | None, socket: str | None) -> None:
        """Keep which process the guest is, and where it answers."""
        self._amend(guest=guest, socket=socket)

    def let_go(self) -> None:
        """Its command is not at work on it any more: anybody may settle it."""
        self._amend(owner=None)

    def forget_effects(self) -> None:
        """They are undone, and must not be undone again: a file may have another's place."""
        self._amend(effects=())

    def _amend(self, **changes: object) -> None:
        with Locked(self._fd, self._path, LOCK_SECONDS):
            self._append(replace(self._newest(), **changes))

    def _newest(self) -> Record:
        return decode_record(content(self._fd, str(self._path)), str(self._path))

    def _append(self, record: Record) -> None:
        lines = content(self._fd, str(self._path))
        whole = lines.rpartition(b"\n")[0] + b"\n"
        try:
            if whole != lines:
                os.ftruncate(self._fd, len(whole))  # of a line that a crash cut off
            write(self._fd, encode_record(record))
        except OSError as error:
            raise MigrationError(f"{self._path} cannot be written: {error.strerror}") from None
        self.record = record

    def remove(self) -> None:
        """Nobody can ask for it any more. MigrationError where the file stays, for `cleanup`."""
        try:
            self._path.unlink(missing_ok=True)
        except OSError as error:
            raise MigrationError(f"{self._path} cannot be removed: {error.strerror}") from None

    def close(self) -> None:
        """Let go of the file. Idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class Locked:
    """The lock of an open file, while this lasts; MigrationError where it cannot be had."""

    def __init__(self, fd: int, path: Path, patience_s: float) -> None:
        self._fd = fd
        self._path = path
        self._patience_s = patience_s

    def __enter__(self) -> None:
        until = monotonic() + self._patience_s
        while True:
            try:
                return fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if monotonic() > until:
                    raise MigrationError(f"{self._path} is locked by one that hangs") from None
                sleep(_LOOK_AGAIN_SECONDS)

    def __exit__(self, *_: object) -> None:
        fcntl.flock(self._fd, fcntl.LOCK_UN)


@contextmanager
def locked_folder(folder: Path, patience_s: float) -> Iterator[None]:
    """The lock of a folder, which leaves no file behind, as Locked; OSError where there is none."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with Locked(fd, folder, patience_s):
            yield
    finally:
        os.close(fd)


def create_record(record: Record) -> SessionRecord:
    """Put a session on record; MigrationError where that cannot be."""
    make_state_folder()
    path = _path(record.session, record.role)
    try:
        fd = place(path, encode_record(record))
    except OSError as error:
        raise MigrationError(f"{path} cannot be made: {error.strerror}") from None
    try:
        _flush_folder(path.parent)
    except OSError as error:
        os.close(fd)
        path.unlink()
        raise MigrationError(f"{path} cannot be written: {error.strerror}") from None
    return SessionRecord(path, fd)


def open_record(path: Path) -> SessionRecord:
    """The record in `path`; MigrationError where there is none."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise MigrationError(f"no record {path}: {error.strerror}") from None
    try:
        return SessionRecord(path, fd)
    except BaseException:
        os.close(fd)
        raise


def find_record(session: str, role: Role) -> SessionRecord:
    """The record of this end of a session; MigrationError where there is none."""
    return open_record(_path(session, role))


def records() -> Iterator[SessionRecord]:
    """All that are on record here, each closed after its turn; MigrationError after the last
    where one could not be read, since nobody knows what it forbids."""
    unreadable: MigrationError | None = None
    for path in sorted(set(state_folder().glob("*.jsonl")) - {state_folder() / HISTORY}):
        try:
            record = open_record(path)
        except MigrationError as error:
            if os.path.lexists(path):  # else its session has just ended
                unreadable = error
            continue
        try:
            yield record
        finally:
            record.close()
    if unreadable is not None:
        raise unreadable


@contextmanager
def settling() -> Iterator[None]:
    """While this lasts nobody else puts right what a dead command has left: what was true of a
    guest when its record was read still is. MigrationError where somebody hangs in it."""
    with locked_folder(make_state_folder(), SETTLING_SECONDS):
        yield


def has_record(session: str, role: Role) -> bool:
    """Whether this end of a session is on record."""
    return _path(session, role).exists()


def is_session(text: str) -> bool:
    """Whether a session can be called `text`."""
    return re.fullmatch("[0-9a-f]{32}", text) is not None


def _path(session: str, role: Role) -> Path:
    if not is_session(session):
        raise MigrationError(f"{session!r} is no session")
    return state_folder() / f"{session}-{role}.jsonl"


def _flush_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
