"""What is put right after commands that died, and what only a closed record may decide."""

import os
import re
import signal
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from pipeline.guests.memory import make_file
from pipeline.leftovers.cleanup import cleanup, clear_way
from pipeline.leftovers.resolve import resolve_destination, resolve_source
from pipeline.leftovers.settling import close_destination
from pipeline.records.processes import Process, this_process
from pipeline.records.record import (
    BoundSockets,
    MadeFile,
    Record,
    StoppedGuest,
    StoppedWriter,
    encode_record,
)
from pipeline.records.store import find_record, state_folder
from protocol.commit import Step
from protocol.errors import ConfigError, GuestError, MigrationError
from tests.pipeline.guests.helpers import python, wait_until
from tests.pipeline.leftovers.helpers import DEAD, SESSION, on_record, state_of, stopped


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


def test_a_writer_that_stands_still_goes_on(writer: Process) -> None:
    """A guest that is stopped for ever because its migration was killed."""
    on_record("source", guest=writer, effects=(stopped(writer),))
    said, whole = cleanup()
    assert whole
    assert said == [f"{SESSION} (source, guest): the guest goes on here"]
    wait_until(lambda: state_of(writer) != "T")
    assert cleanup() == ([], True)


def test_what_cannot_be_undone_does_not_keep_the_rest_from_it(
    writer: Process, tmp_path: Path
) -> None:
    """A guest that stands still because something else of its session hangs."""
    nobody = StoppedGuest(this_process(), str(tmp_path / "nobody"))
    on_record("source", guest=writer, effects=(nobody, stopped(writer)))
    said, whole = cleanup()
    assert not whole
    assert str(tmp_path / "nobody") in said[0]
    wait_until(lambda: state_of(writer) != "T")
    assert cleanup() == (said, False), "what is not undone is forgotten"


KILLED_IN_A_RECORD = """
import os, signal, sys
from pipeline.records import files, store
from pipeline.records.processes import this_process
from pipeline.records.record import Record
def write(fd, data):
    os.write(fd, data[: int(sys.argv[2])])
    os.kill(os.getpid(), signal.SIGKILL)
files.write = write
store.create_record(Record(session=sys.argv[1], role="source", name="", owner=this_process()))
"""


@pytest.mark.parametrize("written", ["0", "30"])
def test_a_record_that_was_never_whole_forbids_nothing(written: str) -> None:
    """An empty file that forbids every migration; one that nobody ever removes, or that is taken
    away from a command at work."""
    with python(KILLED_IN_A_RECORD, SESSION, written) as (killed, _):
        assert killed.wait(10) == -signal.SIGKILL
    [left] = state_folder().iterdir()
    clear_way(lambda record: pytest.fail("there is no record"))
    at_work = state_folder() / f"{SESSION}-destination.{os.getpid()}.new"
    at_work.touch()
    assert cleanup() == ([f"{left}: removed"], True)
    assert list(state_folder().iterdir()) == [at_work]


def test_a_guest_that_may_run_elsewhere_stays_as_it_is(writer: Process) -> None:
    """Two running guests, by a cleanup that means well."""
    on_record("source", Step.INTENT, guest=writer, effects=(stopped(writer),))
    said, whole = cleanup()
    assert not whole
    assert "nobody knows yet" in said[0]
    assert state_of(writer) == "T"


def test_another_process_with_the_number_of_a_dead_one_is_left_alone(writer: Process) -> None:
    """A signal to a stranger."""
    os.kill(writer.pid, signal.SIGSTOP)
    wait_until(lambda: state_of(writer) == "T")
    old = replace(writer, started=writer.started - 1)
    on_record("source", guest=old, effects=(StoppedWriter(old),))
    assert "the guest has ended: it runs nowhere" in cleanup()[0][0]
    assert state_of(writer) == "T"


def test_what_belongs_to_a_command_that_lives_is_left_alone(writer: Process) -> None:
    """A cleanup that lets a guest go on in the middle of its switch-over."""
    on_record("source", owner=this_process(), guest=writer, effects=(stopped(writer),))
    assert cleanup() == ([], True)
    assert state_of(writer) == "T"


@pytest.mark.parametrize("steps", [(), (Step.READY,), (Step.READY, Step.COMMITTED)])
def test_memory_that_nobody_waits_for_is_removed(tmp_path: Path, steps: tuple[Step, ...]) -> None:
    """Gigabytes in a file that a killed destination had made, and its sockets."""
    made = make_file(tmp_path / "memory")
    assert made is not None
    on_record(
        "destination", *steps, guest=DEAD, effects=(made, BoundSockets((str(tmp_path / "c"),)))
    )
    said, whole = cleanup()
    assert whole
    assert "was given up" in said[0]
    assert not (tmp_path / "memory").exists()
    assert bool(list(state_folder().iterdir())) == bool(steps)
    assert not steps or find_record(SESSION, "destination").step is Step.NOT_STARTED
    assert cleanup() == ([], True)


def test_a_file_that_arrived_stays(tmp_path: Path) -> None:
    """A guest whose memory is removed after the commit."""
    made = make_file(tmp_path / "memory")
    assert isinstance(made, MadeFile)
    on_record("destination", Step.READY, Step.COMMITTED, effects=(made,))
    assert cleanup()[1]
    assert (tmp_path / "memory").exists()
    assert find_record(SESSION, "destination").step is Step.STARTED


def test_a_closed_record_is_forgotten_after_a_month() -> None:
    """A state folder that grows for ever; a source that comes back after a week for nothing."""
    on_record("destination", Step.READY, Step.NOT_STARTED)
    assert cleanup() == ([], True)
    path = next(state_folder().iterdir())
    path.write_text(re.sub(r'"changed":"\d{4}', '"changed":"2020', path.read_text()))
    assert "was removed" in cleanup()[0][0]
    assert not list(state_folder().iterdir())


def test_folders_of_dead_commands_go_and_those_of_others_stay(tmp_path: Path) -> None:
    """A temporary folder that fills up; one that is worked in, or a user's own, taken away."""
    for name, owner in (("a", DEAD), ("b", this_process()), ("c", None)):
        folder = tmp_path / f"pageferry-{name}"
        folder.mkdir()
        if owner is not None:
            (folder / "owner").write_bytes(msgspec.json.encode(owner))
    assert cleanup() == ([f"{tmp_path}/pageferry-a: removed"], True)
    assert {path.name for path in tmp_path.glob("pageferry-*")} == {"pageferry-b", "pageferry-c"}


def test_a_guest_is_not_migrated_while_nobody_knows_where_it_is(writer: Process) -> None:
    """A second copy that leaves while the first one may run elsewhere."""
    on_record("source", Step.INTENT, guest=writer)
    with pytest.raises(GuestError, match=f"pageferry resolve {SESSION}"):
        clear_way(lambda record: record.guest == writer)
    clear_way(lambda record: record.guest == DEAD)


def test_the_next_migration_puts_right_what_the_last_one_left(writer: Process) -> None:
    """A guest that leaves stopped, and arrives so."""
    on_record("source", guest=writer, effects=(stopped(writer),))
    clear_way(lambda record: record.guest == writer)
    wait_until(lambda: state_of(writer) != "T")
    assert not list(state_folder().iterdir())


def test_a_guest_that_is_migrated_is_not_migrated_twice(writer: Process) -> None:
    """Two migrations of one guest at a time."""
    on_record("source", owner=this_process(), guest=writer)
    with pytest.raises(GuestError, match=f"process {os.getpid()} migrates that guest"):
        clear_way(lambda record: record.guest == writer)


@pytest.mark.parametrize("steps", [(), (Step.READY,), (Step.READY, Step.COMMITTED)])
def test_a_guest_that_did_not_start_there_goes_on_here(
    tmp_path: Path, writer: Process, steps: tuple[Step, ...]
) -> None:
    """A guest that runs nowhere, though it is known that it does not run there."""
    on_record("source", Step.INTENT, guest=writer, effects=(stopped(writer),))
    on_record("destination", *steps, guest=DEAD)
    peer = tmp_path / "peer.json"
    peer.write_bytes(encode_record(resolve_destination(SESSION)))
    assert resolve_source(SESSION, peer) == "the guest goes on here"
    wait_until(lambda: state_of(writer) != "T")
    with pytest.raises(MigrationError, match="it was settled"):
        resolve_source(SESSION, peer)


def test_a_guest_that_started_there_is_given_up_here(tmp_path: Path, writer: Process) -> None:
    """Two running guests after a resolve."""
    on_record("source", Step.INTENT, guest=writer, effects=(stopped(writer),))
    on_record("destination", Step.READY, Step.COMMITTED, Step.STARTED)
    peer = tmp_path / "peer.json"
    peer.write_bytes(encode_record(resolve_destination(SESSION)))
    assert resolve_source(SESSION, peer) == "the guest was given away"
    assert state_of(writer) == "T"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"closed": False}, "cannot be read"),
        ({"step": Step.READY, "closed": False}, "is not closed"),
        ({"session": "ef" * 16}, "record of session ef"),
        ({"role": "source", "step": Step.KEPT}, "is the source's record"),
    ],
)
def test_another_record_decides_nothing(
    tmp_path: Path, writer: Process, change: dict[str, object], told: str
) -> None:
    """A guest that goes on by a record of another session, or one that may still change."""
    on_record("source", Step.INTENT, guest=writer)
    right = Record(session=SESSION, role="destination", name="guest", owner=DEAD)
    closed = replace(right.at(Step.NOT_STARTED, ""), **change)
    peer = tmp_path / "peer.json"
    peer.write_bytes(encode_record(closed))
    with pytest.raises(MigrationError, match=told):
        resolve_source(SESSION, peer)
    assert find_record(SESSION, "source").step is Step.INTENT


def test_what_cannot_be_resolved_is_said(tmp_path: Path) -> None:
    """A traceback, or a guest that goes on while its migration does, too."""
    with pytest.raises(MigrationError, match="no record of session"):
        resolve_destination(SESSION)
    peer = tmp_path / "peer.json"
    record = on_record("source")
    with pytest.raises(MigrationError, match="left from here: --peer-record FILE is needed"):
        resolve_destination(SESSION)
    with pytest.raises(ConfigError, match="No such file"):
        resolve_source(SESSION, peer)
    right = Record(session=SESSION, role="destination", name="guest", owner=DEAD)
    peer.write_bytes(encode_record(right.at(Step.NOT_STARTED, "")))
    with pytest.raises(MigrationError, match="the guest was never given away"):
        resolve_source(SESSION, peer)
    record.remove()
    on_record("source", Step.INTENT, owner=this_process())
    with pytest.raises(MigrationError, match=f"process {os.getpid()} is at work"):
        resolve_source(SESSION, peer)


def test_a_destination_that_waits_for_its_commit_can_be_closed_and_one_that_starts_cannot() -> None:
    """A guest that starts behind the back of a source that was told that it does not."""
    owner = this_process()
    ready = on_record("destination", Step.READY, owner=owner)
    assert close_destination(find_record(SESSION, "destination")).step is Step.NOT_STARTED
    assert not ready.change(Step.READY, Step.COMMITTED)
    ready.remove()
    on_record("destination", Step.READY, Step.COMMITTED, owner=owner)
    with pytest.raises(MigrationError, match=f"process {owner.pid} is starting the guest"):
        resolve_destination(SESSION)


def test_what_a_dead_destination_made_is_removed_by_resolve_too(tmp_path: Path) -> None:
    """Gigabytes that stay because the record was closed before the cleanup; a file that somebody
    made there later, removed by the next one."""
    made = make_file(tmp_path / "memory")
    assert made is not None
    on_record("destination", Step.READY, guest=DEAD, effects=(made,))
    assert resolve_destination(SESSION).step is Step.NOT_STARTED
    assert not (tmp_path / "memory").exists()
    (tmp_path / "memory").touch()
    assert cleanup() == ([], True)
    assert (tmp_path / "memory").exists()


def test_a_record_that_cannot_be_read_forbids_and_is_told(writer: Process) -> None:
    """A guest that leaves, or goes on, while nobody knows what its record says."""
    on_record("source", guest=writer, effects=(stopped(writer),))
    other = state_folder() / "other-source.jsonl"
    other.write_text("{}\n")
    said, whole = cleanup()
    assert not whole
    assert "the guest goes on here" in said[0]
    assert "other-source.jsonl cannot be read" in said[1]
    with pytest.raises(MigrationError, match="cannot be read"):
        clear_way(lambda _: False)
