"""Whose the guest is at the destination: on record before anything is done, and answered for."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.destination.custody import Custody
from pipeline.records.store import find_record, state_folder
from protocol.commit import Step
from protocol.control import BlockInfo, Hello
from protocol.errors import GuestError, MigrationError
from tests.faults.memories import ArrivingMemory

SESSION = bytes(range(16))
HELLO = Hello(
    name="guest",
    kind="synthetic",
    blocks=[BlockInfo("memory", 1)],
    batch_pages=1,
    codec="none",
    verify="off",
    connections=1,
    machine="",
    disks=[],
)


@pytest.fixture(name="guest")
def _guest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ArrivingMemory]:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    guest = ArrivingMemory(1)
    yield guest
    guest.close()


@pytest.fixture(name="custody")
def _custody(guest: ArrivingMemory) -> Iterator[Custody]:
    custody = Custody(lambda *_: guest, lambda *_: [])
    custody.open("guest", SESSION, ())
    custody.make(HELLO)
    yield custody
    custody.close(settled=True)


def step() -> Step:
    """What is on record."""
    record = find_record(SESSION.hex(), "destination")
    record.close()
    return record.step


def refuse_to_begin(guest: ArrivingMemory, monkeypatch: pytest.MonkeyPatch, *, dead: bool) -> None:
    """The guest does not start."""

    def fail(*_: object, **__: object) -> bool:
        raise GuestError("no")

    monkeypatch.setattr(guest, "begin", fail)
    monkeypatch.setattr(guest, "is_dead", lambda: dead)


def test_it_is_started_behind_ready(guest: ArrivingMemory, custody: Custody) -> None:
    """A guest that runs before it is on record that it may."""
    with pytest.raises(MigrationError, match="closed"):
        custody.begin(run=True)
    assert not guest.done
    custody.ready()
    assert step() is Step.READY
    assert custody.begin(run=True).running
    assert step() is Step.STARTED
    assert not custody.refuse("late")
    assert step() is Step.STARTED


def test_the_source_hears_since_when_it_runs(
    custody: Custody, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A downtime that goes on while a slow disk keeps that it is over."""
    custody.ready()
    monkeypatch.setattr("protocol.commit.DestinationCommit.started", lambda _: time.sleep(0.05))
    assert 50 <= custody.begin(run=True).since_ms < 5000


def test_what_cannot_be_kept_is_answered_all_the_same(
    custody: Custody, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A source that takes its guest back because a disk at the other end is full."""
    custody.ready()

    def fail(*_: object) -> None:
        raise MigrationError("no space left on device")

    monkeypatch.setattr("protocol.commit.DestinationCommit.started", fail)
    assert custody.begin(run=True).running
    assert not custody.refuse("late")
    assert step() is Step.COMMITTED


@pytest.mark.parametrize("dead", [True, False])
def test_one_that_does_not_start_is_refused_when_it_is_dead(
    guest: ArrivingMemory, custody: Custody, monkeypatch: pytest.MonkeyPatch, *, dead: bool
) -> None:
    """A definite no for a guest that may run."""
    custody.ready()
    refuse_to_begin(guest, monkeypatch, dead=dead)
    with pytest.raises(GuestError):
        custody.begin(run=True)
    assert custody.refuse("it does not start") is dead
    assert step() is (Step.NOT_STARTED if dead else Step.COMMITTED)


@pytest.mark.parametrize("ready", [True, False])
def test_a_record_stays_for_a_source_that_may_have_to_ask(custody: Custody, *, ready: bool) -> None:
    """A source that nobody answers; a record that nobody will ever ask for."""
    if ready:
        custody.ready()
    assert custody.refuse("cancelled")
    custody.close(settled=False)
    assert len(list(state_folder().iterdir())) == ready


def test_a_record_that_cannot_be_removed_ends_no_guest(
    custody: Custody, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A guest that has come, and is ended since its state folder is read-only by now."""
    custody.ready()
    custody.begin(run=True)

    def fail(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "unlink", fail)
    custody.close(settled=True)
    monkeypatch.undo()
