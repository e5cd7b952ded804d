"""Two commands that want one guest, or one file, and one that puts right meanwhile."""

import os
import signal
from pathlib import Path

import pytest
from msgspec.structs import replace

from pipeline.destination import places
from pipeline.guests.memory import make_file
from pipeline.leftovers.cleanup import claim, cleanup, clear_way
from pipeline.records import store
from pipeline.records.processes import Process, this_process
from pipeline.records.record import (
    MadeFile,
    Record,
)
from pipeline.records.store import create_record, state_folder
from protocol.commit import Step
from protocol.errors import GuestError, MigrationError
from tests.pipeline.guests.helpers import python
from tests.pipeline.leftovers.helpers import (
    SESSION,
    forget,
    heard,
    on_record,
    say,
    state_of,
    stopped,
)

pytestmark = pytest.mark.timeout(30)


@pytest.fixture(name="own", autouse=True)
def _own(folder: Path) -> Path:
    """The folder of a test, with temporary files and records of its own."""
    return folder


CLAIM = """
import sys
from pipeline.leftovers.cleanup import claim
from pipeline.records.processes import Process, this_process
from pipeline.records.record import Record
from protocol.errors import MigrationError
print("up", flush=True)
for line in sys.stdin:
    session, started = line.split()
    guest = Process(1 << 22, int(started), "boot")
    try:
        claim(Record(session=session, role="source", name="", owner=this_process(), guest=guest))
        print("got", flush=True)
    except MigrationError as error:
        print(error, flush=True)
"""


def test_of_two_migrations_of_one_guest_at_the_same_moment_one_gets_it() -> None:
    """Two that each stop, and resume, one guest; or none at all, since each sees the other."""
    with python(CLAIM) as (one, _), python(CLAIM) as (other, _):
        for turn in range(40):
            say(one, f"{turn:032x} {turn}")
            say(other, f"{turn + 100:032x} {turn}")
            told = sorted((heard(one), heard(other)))
            assert told[0] == "got"
            assert "migrates that guest" in told[1]
    for path in state_folder().iterdir():
        path.unlink()


HELD = """
import sys
from pipeline.leftovers import settling
from pipeline.shell.cli import run_command
real = settling.undo
def undo(effect):
    print("held", flush=True)
    input()
    real(effect)
settling.undo = undo
print("up", flush=True)
code = run_command(sys.argv[1:])
"""


@pytest.mark.parametrize("words", [("cleanup",), ("resolve", SESSION)])
def test_a_migration_does_not_go_by_one_that_puts_right(
    own: Path, writer: Process, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A guest that a new migration has stopped, or the file that it came in, undone by an old
    command that was held up and does not know."""
    monkeypatch.setattr(store, "SETTLING_SECONDS", 0.1)
    made = make_file(own / "memory")
    assert made is not None
    effects = (stopped(writer), made)
    on_record("destination", Step.READY, guest=writer, effects=effects).close()
    ours = Record(session="ef" * 16, role="source", name="", owner=this_process(), guest=writer)
    with python(HELD, *words) as (held, _):
        assert heard(held) == "held"
        held.send_signal(signal.SIGSTOP)
        for _ in range(2):
            with pytest.raises(MigrationError, match="is locked by one that hangs"):
                clear_way(lambda record: record.guest == writer)
            with pytest.raises(MigrationError, match="is locked by one that hangs"):
                claim(ours)
        held.send_signal(signal.SIGCONT)
        say(held, "")
        assert heard(held) == "held"
        say(held, "")
        held.wait(5)
    clear_way(lambda record: record.guest == writer)
    record = claim(ours)
    record.add(stopped(writer))
    assert cleanup() == ([], True)
    assert state_of(writer) == "T"
    assert not (own / "memory").exists()
    forget(record)


def test_two_writers_files_are_one_guest(own: Path, writer: Process) -> None:
    """One process that two migrations stop, since each moves another file of it."""
    first = create_record(
        Record(session=SESSION, role="source", name="", owner=this_process(), guest=writer)
    )
    with pytest.raises(GuestError, match=f"process {os.getpid()} migrates that guest: {SESSION}"):
        claim(replace(first.record, session="ef" * 16))
    assert [path.name for path in state_folder().iterdir()] == [f"{SESSION}-source.jsonl"]
    forget(first)


def test_of_two_that_land_in_one_file_one_makes_it(
    own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A guest that lands in a file which the other one made, and takes away since it failed."""
    monkeypatch.setattr(store, "SETTLING_SECONDS", 0.05)
    first = on_record("destination", owner=this_process())
    other = create_record(replace(first.record, session="ef" * 16))
    refused: list[str] = []

    def come_in_between(path: Path) -> MadeFile | None:
        made = make_file(path)
        with pytest.raises(MigrationError) as error:
            places.make_place(path, other)
        refused.append(str(error.value))
        return made

    monkeypatch.setattr(places, "make_file", come_in_between)
    places.make_place(own / "memory", first)
    with pytest.raises(GuestError, match=f"process {os.getpid()} migrates that guest: {SESSION}"):
        places.make_place(own / "memory", other)
    assert "is locked" in refused[0]
    forget(first, other)
    (own / "memory").unlink()
