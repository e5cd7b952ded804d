"""What the hosts say of an attempt whose ends have left no result, or not all of it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.cluster import waiting
from pipeline.cluster.folder import EndFolder
from pipeline.cluster.settling import Left, Word, end_of_source, last_word, settle_source
from pipeline.records.processes import Process, this_process
from pipeline.records.record import Record
from pipeline.records.store import create_record, has_record
from pipeline.result import Result, encode_result
from protocol.commit import Step
from protocol.errors import MigrationError
from protocol.session import Role
from protocol.status import Status

TOKEN = "0123456789abcdef"
SESSION = "a" * 32


@pytest.fixture(autouse=True)
def _own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def dead() -> Process:
    """One that is no more."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    process = Process(child.pid, 1, this_process().boot)
    child.communicate()
    return process


def record(role: Role, *steps: Step, guest: Process | None = None) -> None:
    """That of an end whose command is dead, at the last of `steps`."""
    name = f"g1.{TOKEN}"
    made = create_record(Record(session=SESSION, role=role, name=name, owner=dead(), guest=guest))
    for before, after in zip((Step.OPEN, *steps), steps, strict=False):
        assert made.change(before, after)
    made.close()


@pytest.mark.parametrize("steps", [(), (Step.INTENT,), (Step.INTENT, Step.GIVEN)])
def test_how_far_a_source_came_is_told(steps: tuple[Step, ...]) -> None:
    """A guest that was given away and is taken for one that stayed."""
    record("source", *steps)
    assert end_of_source(TOKEN) == Left(None, (Step.OPEN, *steps)[-1])
    assert not EndFolder(TOKEN, "source").claim(), "it never begins any more"


@pytest.mark.parametrize("guest", ["lives", "is dead"])
def test_a_source_says_whether_its_guest_lives(guest: str) -> None:
    """A dead guest that is tried again and again."""
    record("source", guest=this_process() if guest == "lives" else dead())
    assert settle_source(TOKEN, None) is (guest == "lives")
    assert not has_record(SESSION, "source")


def test_an_intent_without_a_word_is_not_settled() -> None:
    """A guest that goes on although it may run elsewhere."""
    record("source", Step.INTENT)
    with pytest.raises(MigrationError, match="has no record of a guest that was given"):
        settle_source(TOKEN, None)
    assert has_record(SESSION, "source")


@pytest.mark.parametrize("status", [Status.COMPLETED, Status.FAILED])
def test_a_result_is_a_word(status: Status) -> None:
    """A destination that has said all, and is not heard."""
    folder = EndFolder(TOKEN, "destination")
    folder.claim()
    folder.result_path.write_text(encode_result(Result(status=status)))
    assert last_word(TOKEN) == Word(None, has_come=status is Status.COMPLETED)


def test_a_destination_that_was_never_begun_has_no_guest() -> None:
    """A question that nobody can answer, asked for ever."""
    assert last_word(TOKEN) == Word(None, has_come=False)


@pytest.mark.parametrize("session", ["", SESSION])
def test_at_last_what_waited_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, session: str
) -> None:
    """A guest that is ended, since the command that took it in was killed."""
    monkeypatch.setattr(waiting, "guest_session", lambda _, path: session)
    monkeypatch.setattr(waiting, "_owner", lambda _: os.geteuid())
    _began(tmp_path)
    assert last_word(TOKEN).has_come is bool(session)


def test_what_waited_and_is_gone_has_no_guest(tmp_path: Path) -> None:
    """A socket's file of a process that is dead."""
    _began(tmp_path)
    assert not last_word(TOKEN).has_come


def test_memory_without_a_process_cannot_be_asked() -> None:
    """A guess about a file."""
    folder = EndFolder(TOKEN, "destination")
    folder.claim()
    folder.config.write_text("{}")
    with pytest.raises(MigrationError, match="nobody can say"):
        last_word(TOKEN)


def _began(tmp_path: Path) -> None:
    folder = EndFolder(TOKEN, "destination")
    folder.claim()
    folder.config.write_text(json.dumps({"destination": {"socket": str(tmp_path / "socket")}}))
