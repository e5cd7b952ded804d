"""The history: what becomes of it when many write, when it is full, when it is damaged."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
import structlog
from structlog.testing import capture_logs

from pipeline.records import store
from pipeline.records.history import KEPT, LINE_BYTES, Entry, keep, past
from pipeline.records.store import HISTORY, Locked, make_state_folder, records, state_folder
from pipeline.result import Ram, Result, RoundResult
from protocol.errors import MigrationError
from protocol.status import Status


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    yield
    structlog.reset_defaults()


def path() -> Path:
    return state_folder() / HISTORY


def named(name: str) -> Result:
    return Result(status=Status.COMPLETED, name=name, ram=Ram(total=4096))


def line(name: str) -> bytes:
    entry = Entry(ended="2026-01-01T00:00:00Z", role="source", name=name)
    return msgspec.json.encode(entry) + b"\n"


def names() -> list[str | None]:
    return [entry.name for entry in past()[0]]


def warning(result: Result) -> str:
    """What is said of a result that cannot be kept."""
    with capture_logs() as told:
        keep("source", result)
    [one] = told
    assert one["log_level"] == "warning"
    return str(one["event"])


def test_what_is_kept_is_found_newest_last() -> None:
    """A field that is lost, a time that is local, a file that others may read."""
    assert past() == ([], 0)
    keep("source", named("a"))
    keep("destination", Result(status=Status.FAILED, error_desc="it broke"))
    (one, other), broken = past()
    assert (one.name, one.role, one.status, one.ram) == (
        "a",
        "source",
        "completed",
        Ram(total=4096),
    )
    assert (other.role, other.error_desc, broken) == ("destination", "it broke", 0)
    age = datetime.now(UTC) - datetime.fromisoformat(one.ended)
    assert timedelta(seconds=-1) < age < timedelta(seconds=30)
    assert path().stat().st_mode & 0o777 == 0o600


def test_only_the_newest_are_kept() -> None:
    """A file that grows for ever; one that is cut while somebody reads it."""
    make_state_folder()
    path().write_bytes(b"".join(line(str(number)) for number in range(KEPT)))
    with path().open("rb") as reader:
        keep("source", named("new"))
        assert reader.read().count(b"\n") == KEPT
    assert names() == [*map(str, range(1, KEPT)), "new"]
    assert path().stat().st_mode & 0o777 == 0o600
    assert {one.name for one in state_folder().iterdir()} == {HISTORY, "history.lock"}


def test_many_at_once_lose_nothing() -> None:
    """Lines that are mixed, or lost to one who has just cut the file."""
    make_state_folder()
    path().write_bytes(b"".join(line("old") for _ in range(KEPT - 20)))
    code = (
        "import sys; from pipeline.records.history import *\n"
        "for n in range(10): keep('source', Result(name=f'{sys.argv[1]}.{n}', rounds=[]))"
    )
    writers = [subprocess.Popen([sys.executable, "-c", code, str(number)]) for number in range(6)]
    assert [writer.wait(60) for writer in writers] == [0] * 6
    assert past()[1] == 0
    assert len(names()) == KEPT
    wanted = {f"{writer}.{number}" for writer in range(6) for number in range(10)}
    assert set(names()[-60:]) == wanted


@pytest.mark.parametrize(
    "damage",
    [
        b"{}\n", b"\xff\n",
        line("x").replace(b'"x"', b'"\xff"'), b"\n", b"[1]\n",
        line("x")[:40] + b"\n", b'{"role":"me"}\n',
        b'{"x":' + b"[" * 50_000 + b"\n",
    ],
)  # fmt: skip
def test_a_broken_line_is_skipped_and_counted(damage: bytes) -> None:
    """A history that one bad byte makes useless."""
    keep("source", named("a"))
    with path().open("ab") as file:
        file.write(damage)
    keep("source", named("b"))
    assert names() == ["a", "b"]
    assert past()[1] == 1


def test_a_line_that_was_cut_off_does_not_swallow_the_next() -> None:
    """Two results lost to one crash."""
    make_state_folder()
    path().write_bytes(line("a") + line("b")[:50])
    keep("source", named("c"))
    assert (names(), past()[1]) == (["a", "c"], 1)


def test_a_disk_that_is_full_leaves_whole_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a line, which the next command finishes."""
    keep("source", named("a"))
    write = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda fd, data: write(fd, data[:20]))
        assert "no room for a whole line" in warning(named("b"))
    assert path().read_bytes().endswith(b"}\n")


def test_one_that_cannot_be_written_is_a_warning(tmp_path: Path) -> None:
    """A migration that worked, and a command that says it has failed."""
    make_state_folder()
    path().mkdir()
    assert "the history cannot be written: [Errno 21]" in warning(named("a"))
    path().rmdir()
    elsewhere = tmp_path / "elsewhere"
    path().symlink_to(elsewhere)
    assert "cannot be written" in warning(named("a"))
    assert not elsewhere.exists()
    path().unlink()
    assert "cannot be written" in warning(named("\udcff"))


def test_one_that_is_no_file_is_not_waited_for() -> None:
    """A command that hangs for ever at a pipe."""
    make_state_folder()
    os.mkfifo(path())
    assert "it is no file" in warning(named("a"))
    with pytest.raises(MigrationError, match="it is no file"):
        past()


def test_a_lock_that_is_kept_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that does not end since another one hangs."""
    monkeypatch.setattr(store, "LOCK_SECONDS", 0.05)
    keep("source", named("a"))
    lock = state_folder() / "history.lock"
    with lock.open() as file, Locked(file.fileno(), lock, 1):
        began = time.monotonic()
        assert "is locked by one that hangs" in warning(named("b"))
        assert time.monotonic() - began < 1
    assert names() == ["a"]


def test_a_result_of_very_many_rounds_is_kept_without_them() -> None:
    """A file of gigabytes: one guest that was never quiet goes round for days."""
    one = RoundResult(
        round_no=1, pages=1, zero_pages=0, bytes=4096, wire_bytes=99, ms=1, dirty_pages_rate=1
    )
    few, many = named("few"), named("many")
    few.rounds, many.rounds = [one], [one] * LINE_BYTES
    keep("source", few)
    keep("source", many)
    assert [len(entry.rounds) for entry in past()[0]] == [1, 0]
    assert len(many.rounds) == LINE_BYTES
    assert path().stat().st_size < LINE_BYTES


def test_it_is_no_record() -> None:
    """Migrations that are refused since a record cannot be read that is none."""
    keep("source", named("a"))
    assert list(records()) == []
