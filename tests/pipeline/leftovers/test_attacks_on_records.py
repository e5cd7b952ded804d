"""What lies in the place of a record, or is written in one, that nobody of us has put there."""

import os
import socket
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from pipeline.leftovers.cleanup import claim, clear_way
from pipeline.records import store
from pipeline.records.processes import Process, this_process
from pipeline.records.record import (
    BoundSockets,
    MadeFile,
    Record,
    StoppedGuest,
    StoppedWriter,
    encode_record,
)
from pipeline.records.store import find_record
from pipeline.shell.cli import run_command
from protocol.commit import Step
from protocol.errors import MigrationError
from tests.pipeline.leftovers.helpers import DEAD, SESSION, forget, on_record, stopped

pytestmark = pytest.mark.timeout(30)
PEER = Record(session=SESSION, role="destination", name="guest", owner=DEAD)


@pytest.fixture(name="own", autouse=True)
def _own(folder: Path) -> Path:
    """The folder of a test, with temporary files and records of its own."""
    return folder


def _empty(path: Path) -> None:
    path.touch()


def _truncated(path: Path) -> None:
    path.write_bytes(encode_record(PEER.at(Step.NOT_STARTED, ""))[:-2])


def _forged(path: Path) -> None:
    path.write_text('{"version":1,"closed":true,"step":"not-started"}\n')


def _renamed(path: Path) -> None:
    path.write_bytes(encode_record(replace(PEER.at(Step.NOT_STARTED, ""), session="ef" * 16)))


def _nested(path: Path) -> None:
    path.write_text("[" * 100_000 + "\n")


def _huge(path: Path) -> None:
    path.touch()
    os.truncate(path, 100 << 20)


def _folder(path: Path) -> None:
    path.mkdir()


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))


def _loop(path: Path) -> None:
    path.symlink_to(path)


NO_RECORDS = (
    _empty, _truncated, _forged, _renamed, _nested, _huge, _folder, _pipe, _device, _socket, _loop
)  # fmt: skip
EVIL = f"{'ab' * 16}-destination.jsonl"


def remove(path: Path) -> None:
    """Whatever it is."""
    path.rmdir() if path.is_dir() else path.unlink()


@pytest.mark.parametrize("make", NO_RECORDS)
def test_what_is_no_record_is_told_and_forbids(
    make: Callable[[Path], None], writer: Process, capfd: pytest.CaptureFixture[str]
) -> None:
    """A cleanup that hangs, takes all memory, or gives up before it comes to the other records; a
    migration that passes over what it cannot read."""
    path = store.make_state_folder() / EVIL
    make(path)
    on_record("source", guest=writer, effects=(stopped(writer),)).close()
    tracemalloc.start()
    assert run_command(["cleanup"]) == 1
    assert tracemalloc.get_traced_memory()[1] < 16 << 20
    tracemalloc.stop()
    told = capfd.readouterr().out.splitlines()
    assert [line for line in told if str(path) in line] == told[1:]
    assert "the guest goes on here" in told[0]
    with pytest.raises(MigrationError, match=EVIL):
        clear_way(lambda _: False)
    with pytest.raises(MigrationError, match=EVIL):
        claim(Record(session=SESSION, role="source", name="", owner=this_process(), guest=writer))
    remove(path)


@pytest.mark.parametrize("make", NO_RECORDS)
def test_what_is_no_record_resolves_nothing(
    make: Callable[[Path], None], own: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A resolve that hangs, takes all memory, or lets a guest go on by what is no answer."""
    record = on_record("source", Step.INTENT)
    make(own / "peer")
    tracemalloc.start()
    code = run_command(["resolve", SESSION, "--peer-record", str(own / "peer")])
    assert tracemalloc.get_traced_memory()[1] < 16 << 20
    tracemalloc.stop()
    words = capfd.readouterr().err
    assert code in (1, 2)
    assert words.startswith("pageferry: ")
    assert words.count("\n") == 1
    assert str(own / "peer") in words
    found = find_record(SESSION, "source")
    assert found.step is Step.INTENT
    forget(record, found)
    remove(own / "peer")


@pytest.mark.parametrize(
    "change",
    [
        {"changed": "yesterday"},
        {"changed": "2026-01-01T00:00:00"},
        {"changed": ""},
        {"owner": replace(DEAD, pid=0)},
        {"owner": replace(DEAD, pid=-1)},
        {"effects": (StoppedWriter(replace(DEAD, pid=-1)),)},
        {"effects": (StoppedGuest(DEAD, "guest"),)},
        {"effects": (MadeFile("memory", 1, 1),)},
        {"effects": (MadeFile("/memory\0", 1, 1),)},
        {"effects": (MadeFile("", 1, 1),)},
        {"effects": (BoundSockets(("/a", "b")),)},
        {"socket": "guest"},
        {"socket": "/guest\0"},
    ],
)
@pytest.mark.parametrize("step", [Step.OPEN, Step.NOT_STARTED])
def test_a_record_of_values_that_nobody_writes_is_no_record(
    change: dict[str, object], step: Step, capfd: pytest.CaptureFixture[str]
) -> None:
    """A traceback, a signal to all processes, or a file removed that lies where the command is."""
    fields = msgspec.to_builtins(PEER.at(step, ""))
    path = store.make_state_folder() / f"{SESSION}-destination.jsonl"
    path.write_bytes(msgspec.json.encode(fields | msgspec.to_builtins(change)) + b"\n")
    assert run_command(["cleanup"]) == 1
    assert capfd.readouterr().out == f"{path} cannot be read: no record of this version\n"
    assert run_command(["resolve", SESSION]) == 1
    assert "cannot be read" in capfd.readouterr().err
    with pytest.raises(MigrationError, match="cannot be read"):
        clear_way(lambda record: True)
    path.unlink()


@pytest.mark.parametrize("session", ["a" * 5000, "\u00b2" * 32, "../" * 10, "AB" * 16, "\udcff"])
def test_a_session_that_is_none_is_a_line(session: str, capfd: pytest.CaptureFixture[str]) -> None:
    """A traceback for a name that no file can have."""
    assert run_command(["resolve", session]) == 2
    words = capfd.readouterr().err
    assert "SESSION: found " in words
    assert words.count("\n") == 1


def test_a_terminal_is_told_no_more_than_words(capfd: pytest.CaptureFixture[str]) -> None:
    """A peer whose guest's name, or a file whose own, has a terminal do things, or ends cleanup."""
    on_record("destination", name="\x1b[2J\nall is well").close()
    evil = store.make_state_folder() / os.fsdecode(b"\xff\x1b.jsonl")
    evil.touch()
    assert run_command(["cleanup"]) == 1
    told = capfd.readouterr().out
    assert told.count("\n") == 2
    assert told.replace("\n", "").isprintable()
    evil.unlink()
