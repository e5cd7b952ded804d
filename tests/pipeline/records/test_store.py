"""Records: what was flushed is what counts, and of two who change one, one wins."""

import fcntl
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec.structs import replace

from pipeline.records import store
from pipeline.records.processes import Process, boot, maybe_process, this_process
from pipeline.records.record import MadeFile, Record, decode_record, encode_record
from pipeline.records.store import create_record, find_record, open_record, records, state_folder
from protocol.commit import Step
from protocol.errors import ConfigError, MigrationError

SESSION = "ab" * 16
RECORD = Record(session=SESSION, role="source", name="guest", owner=this_process())


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))


def path_of(role: str = "source") -> Path:
    return state_folder() / f"{SESSION}-{role}.jsonl"


def test_a_record_is_there_before_anything_else() -> None:
    """A session that nobody knows of after a crash."""
    record = create_record(RECORD)
    assert path_of().stat().st_mode & 0o777 == 0o600
    assert state_folder().stat().st_mode & 0o777 == 0o700
    found = find_record(SESSION, "source")
    assert replace(found.record, changed=RECORD.changed) == RECORD
    with pytest.raises(MigrationError, match="cannot be made: File exists"):
        create_record(RECORD)
    record.remove()
    with pytest.raises(MigrationError, match="No such file"):
        find_record(SESSION, "source")
    for one in (record, found):
        one.close()
        one.close()


def test_of_two_changes_one_wins() -> None:
    """A guest that is given away by one process and kept by another."""
    one, other = create_record(RECORD), open_record(path_of())
    assert one.change(Step.OPEN, Step.INTENT)
    assert not other.change(Step.OPEN, Step.KEPT)
    assert other.step is Step.INTENT
    assert other.change(Step.INTENT, Step.KEPT, "a reason")
    assert not one.change(Step.INTENT, Step.GIVEN)
    assert (one.step, one.record.closed, one.record.reason) == (Step.KEPT, True, "a reason")


def test_an_illegal_step_is_no_change() -> None:
    """A record that jumps, and means something that was not done."""
    record = create_record(RECORD)
    assert not record.change(Step.OPEN, Step.GIVEN)
    assert record.step is Step.OPEN


def test_effects_add_up_and_outlast_steps() -> None:
    """A guest that is not let go on, because the record has forgotten that it was stopped."""
    record = create_record(RECORD)
    made = [MadeFile("/a", 1, 2), MadeFile("/b", 1, 3)]
    for one in made:
        record.add(one)
    record.name_guest(this_process(), "/socket")
    assert record.change(Step.OPEN, Step.KEPT)
    found = find_record(SESSION, "source").record
    assert found.effects == tuple(made)
    assert (found.guest, found.socket) == (this_process(), "/socket")


@pytest.mark.parametrize("torn", [b'{"version":1,"sess', b"\xff\xfe", b"{}"])
def test_a_line_that_a_crash_cut_off_does_not_count(torn: bytes) -> None:
    """A record that cannot be read any more, or a step that was never flushed."""
    record = create_record(RECORD)
    with path_of().open("ab") as file:
        file.write(torn)
    assert find_record(SESSION, "source").step is Step.OPEN
    assert record.change(Step.OPEN, Step.INTENT)
    assert find_record(SESSION, "source").step is Step.INTENT


@pytest.mark.parametrize(
    "change",
    [
        lambda record: replace(record, version=2),
        lambda record: replace(record, step=Step.READY),
        lambda record: replace(record, role="destination", step=Step.INTENT),
    ],
)
def test_what_is_no_record_is_refused(change: Callable[[Record], Record]) -> None:
    """A file of another version, or of a step that its role does not have, taken at its word."""
    with pytest.raises(MigrationError, match="x cannot be read"):
        decode_record(encode_record(change(RECORD)), "x")


def test_who_holds_the_lock_and_hangs_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A commit that stands still for ever because another process was stopped."""
    monkeypatch.setattr(store, "LOCK_SECONDS", 0.05)
    record = create_record(RECORD)
    fd = os.open(path_of(), os.O_RDWR)
    fcntl.flock(fd, fcntl.LOCK_EX)
    with pytest.raises(MigrationError, match="is locked by one that hangs"):
        record.change(Step.OPEN, Step.INTENT)
    os.close(fd)
    assert record.change(Step.OPEN, Step.INTENT)


def test_a_step_is_flushed_before_it_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A guest that is given away on a record that the power takes along."""
    record = create_record(RECORD)

    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fdatasync", fail)
    with pytest.raises(MigrationError, match="cannot be written: No space left"):
        record.change(Step.OPEN, Step.INTENT)
    assert record.step is Step.OPEN


def test_all_records_are_found_and_what_is_none_is_told_at_the_end() -> None:
    """A cleanup that stops at a file it cannot read, or says that all is well."""
    create_record(RECORD)
    create_record(replace(RECORD, role="destination"))
    (state_folder() / "a.jsonl").write_text("nothing\n")
    found: list[str] = []
    with pytest.raises(MigrationError, match="cannot be read"):
        found.extend(one.record.role for one in records())
    assert found == ["destination", "source"]


def test_a_whole_line_that_cannot_be_read_hides_no_older_one() -> None:
    """An intent of another version that is passed over, so that the guest runs twice."""
    create_record(RECORD)
    with path_of().open("ab") as file:
        file.write(encode_record(replace(RECORD.at(Step.INTENT, ""), version=2)))
    with pytest.raises(MigrationError, match="no record of this version"):
        find_record(SESSION, "source")


@pytest.mark.parametrize("session", ["../x", "", "a/b"])
def test_a_session_is_no_path(session: str) -> None:
    """A record that is read, or written, somewhere else."""
    with pytest.raises(MigrationError, match="is no session"):
        find_record(session, "source")


def test_a_folder_that_cannot_be_had_is_the_users_mistake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A migration that fails in its commit for what could be seen before it began."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    with pytest.raises(ConfigError, match="XDG_STATE_HOME moves it"):
        store.make_state_folder()


def test_a_process_is_more_than_its_number() -> None:
    """A record whose dead owner is taken for whoever has its pid now."""
    here = this_process()
    assert here.is_alive
    assert not Process(here.pid, here.started + 1, boot()).is_alive
    assert not replace(here, boot="another").is_alive
    assert maybe_process(1 << 22) is None


def test_a_process_that_was_not_waited_for_is_dead() -> None:
    """A zombie that is taken for a command at work."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        found = maybe_process(child.pid)
        assert found is not None
        assert found.is_alive
        assert child.stdin is not None
        child.stdin.close()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert not found.is_alive
