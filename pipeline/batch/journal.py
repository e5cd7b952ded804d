"""What a batch has decided and seen, on disk before it is acted by: SQLite, write-ahead, flushed.

One conductor writes; `batch status` reads meanwhile, and puts requests into a table of their own.
"""

import fcntl
import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

from pipeline.batch.outcome import Kind
from protocol.errors import ConfigError, MigrationError

State = Literal["waiting", "running", "arrived", "failed", "unknown", "lost", "cancelled", "stuck"]
_TABLES = """
CREATE TABLE IF NOT EXISTS batch (name TEXT, plan BLOB, began REAL, ended REAL);
CREATE TABLE IF NOT EXISTS moves (
  name TEXT PRIMARY KEY, source TEXT, memory INTEGER, state TEXT, place TEXT, reason TEXT,
  tries INTEGER, session TEXT, token TEXT, again REAL);
CREATE TABLE IF NOT EXISTS attempts (
  token TEXT PRIMARY KEY, move TEXT, source TEXT, destination TEXT, began REAL, uri TEXT,
  ended REAL, outcome TEXT, reason TEXT, result BLOB, closed INTEGER DEFAULT 0,
  percent REAL DEFAULT 0);
CREATE TABLE IF NOT EXISTS events (
  number INTEGER PRIMARY KEY, at REAL, what TEXT, move TEXT, token TEXT, detail TEXT);
CREATE TABLE IF NOT EXISTS requests (
  number INTEGER PRIMARY KEY, what TEXT, argument TEXT, done INTEGER DEFAULT 0);
"""


class MoveRow(Struct, frozen=True):
    """Where a move stands: `place` is the host on which the guest is, as far as that is known."""

    name: str
    source: str
    memory: int
    state: State = "waiting"
    place: str = ""
    reason: str = ""
    tries: int = 0
    session: str | None = None
    token: str | None = None
    again: float | None = None


class AttemptRow(Struct, frozen=True):
    """One attempt: `closed` once nothing of it is left to be done."""

    token: str
    move: str
    source: str
    destination: str
    began: float
    uri: str | None = None
    ended: float | None = None
    outcome: Kind | None = None
    reason: str | None = None
    result: bytes | None = None
    closed: int = 0
    percent: float = 0


class Request(Struct, frozen=True):
    """What somebody at another terminal asks for."""

    number: int
    what: str
    argument: str


@contextmanager
def legible(path: Path) -> Iterator[None]:
    """While this lasts what SQLite complains of in the journal `path`, a full disk, a table that is
    none of ours, is a MigrationError."""
    try:
        yield
    except (sqlite3.Error, OverflowError) as error:
        raise MigrationError(f"{path}: {error}") from None


class Journal:
    """The file `path`, for its user alone. ConfigError where it cannot be had."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            self._database = sqlite3.connect(path, timeout=10, isolation_level=None)
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute("PRAGMA synchronous=FULL")
            self._database.executescript(_TABLES)
        except (sqlite3.Error, OSError) as error:
            raise ConfigError(f"{path}: no journal: {error}") from None

    def begin(self, name: str, plan: bytes, moves: Iterable[MoveRow], at: float) -> None:
        """Write down a new batch."""
        with self.together():
            self._do("INSERT INTO batch VALUES (?, ?, ?, NULL)", name, plan, at)
            for move in moves:
                self._do(f"INSERT INTO moves VALUES ({'?,' * 9}?)", *msgspec.structs.astuple(move))

    @property
    def plan(self) -> bytes | None:
        """Of the batch that is in it."""
        row = self._database.execute("SELECT plan FROM batch").fetchone()
        return None if row is None else bytes(row[0])

    @property
    def times(self) -> tuple[float, float | None]:
        """When the batch began and ended."""
        row = self._database.execute("SELECT began, ended FROM batch").fetchone()
        return row[0], row[1]

    def end(self, at: float | None) -> None:
        """It is over; None: it goes on."""
        self._do("UPDATE batch SET ended = ?", at)

    def moves(self) -> list[MoveRow]:
        """All of them, in the plan's order."""
        return [
            MoveRow(*row) for row in self._database.execute("SELECT * FROM moves ORDER BY rowid")
        ]

    def move(self, name: str) -> MoveRow:
        """That of one guest."""
        return MoveRow(*self._database.execute(
            "SELECT * FROM moves WHERE name = ?", (name,)).fetchone())  # fmt: skip

    def attempts(self) -> list[AttemptRow]:
        """All of them, in the order in which they began."""
        rows = self._database.execute("SELECT * FROM attempts ORDER BY began")
        return [AttemptRow(*row) for row in rows]

    def events(self, behind: int = 0) -> list[tuple[int, float, str, str, str, str]]:
        """(number, at, what, move, token, detail) of those behind a number."""
        asked = "SELECT * FROM events WHERE number > ? ORDER BY number"
        return self._database.execute(asked, (behind,)).fetchall()

    def note(self, at: float, what: str, move: str = "", token: str = "", detail: str = "") -> None:
        """An event, for those who read later."""
        asked = "INSERT INTO events (at, what, move, token, detail) VALUES (?, ?, ?, ?, ?)"
        self._do(asked, at, what, move, token, detail)

    def attempt(self, row: AttemptRow, tries: int) -> None:
        """It is about to begin."""
        with self.together():
            columns = "token, move, source, destination, began"
            asked = f"INSERT INTO attempts ({columns}) VALUES (?, ?, ?, ?, ?)"
            self._do(asked, row.token, row.move, row.source, row.destination, row.began)
            self.change(row.move, state="running", token=row.token, tries=tries, again=None)
            self.note(row.began, "begin", row.move, row.token, row.destination)

    def change(self, move: str, **fields: object) -> None:
        """Change fields of a move."""
        self._update("moves", "name", move, fields)

    def change_attempt(self, token: str, **fields: object) -> None:
        """Change fields of an attempt."""
        self._update("attempts", "token", token, fields)

    def ask(self, what: str, argument: str = "") -> None:
        """From another terminal."""
        self._do("INSERT INTO requests (what, argument) VALUES (?, ?)", what, argument)

    def asked(self) -> list[Request]:
        """What was not done yet."""
        rows = self._database.execute(
            "SELECT number, what, argument FROM requests WHERE done = 0 ORDER BY number"
        )
        return [Request(*row) for row in rows]

    def heard(self) -> list[Request]:
        """What was asked for, and heard, in this batch."""
        rows = self._database.execute(
            "SELECT number, what, argument FROM requests WHERE done = 1 ORDER BY number"
        )
        return [Request(*row) for row in rows]

    def is_done(self, request: Request) -> None:
        """Write down that a request was heard."""
        self._do("UPDATE requests SET done = 1 WHERE number = ?", request.number)

    @contextmanager
    def together(self) -> Iterator[None]:
        """All of what is written in it, or nothing."""
        self._do("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._do("ROLLBACK")
            raise
        self._do("COMMIT")

    def close(self) -> None:
        """Let go of it."""
        self._database.close()

    def _update(self, table: str, key: str, value: str, fields: dict[str, object]) -> None:
        columns = ", ".join(f"{name} = ?" for name in fields)
        self._do(f"UPDATE {table} SET {columns} WHERE {key} = ?", *fields.values(), value)

    def _do(self, asked: str, *values: object) -> None:
        self._database.execute(asked, values)


@contextmanager
def conducted(path: Path) -> Iterator[Journal]:
    """The journal, of which nobody else is the conductor. ConfigError where somebody is."""
    lock = path.with_name(path.name + ".lock")
    try:
        fd = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigError(f"{lock} cannot be made: {error.strerror}") from None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise ConfigError(f"{path}: another `pageferry batch run` is at work on it") from None
    try:
        with legible(path), closing(Journal(path)) as journal:
            yield journal
    finally:
        os.close(fd)


@contextmanager
def read_journal(path: Path) -> Iterator[Journal]:
    """That of a batch that was begun; ConfigError where there is none."""
    if not path.exists():
        raise ConfigError(f"{path}: no batch was begun: `pageferry batch run` begins one")
    with legible(path), closing(Journal(path)) as journal:
        if journal.plan is None:
            raise ConfigError(f"{path}: no batch was begun")
        yield journal
