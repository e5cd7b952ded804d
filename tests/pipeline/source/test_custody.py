"""Whose the guest is: on record before anything is done, and given back only after a no."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.leftovers.cleanup import cleanup
from pipeline.records.store import find_record, state_folder
from pipeline.source.custody import Custody
from protocol.commit import Step
from protocol.errors import GuestError, MigrationError
from tests.faults.memories import LeavingMemory, random_words

SESSION = bytes(range(16))


@pytest.fixture(name="guest")
def _guest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LeavingMemory]:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    guest = LeavingMemory(random_words(1))
    yield guest
    guest.close()


@pytest.fixture(name="custody")
def _custody(guest: LeavingMemory) -> Custody:
    custody = Custody(guest, "guest", SESSION)
    custody.open()
    return custody


def test_before_the_intent_it_goes_on(guest: LeavingMemory, custody: Custody) -> None:
    """A guest that stands still after a failure that has nothing to do with it."""
    custody.stop()
    assert not guest.runs
    custody.take_back()
    assert guest.runs
    assert custody.alive == "source"
    custody.close()
    assert not list(state_folder().iterdir())


def test_one_that_was_paused_has_its_stop_undone_too(
    custody: Custody, guest: LeavingMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Settings that stay changed, because only a guest that ran is asked."""
    asked: list[bool] = []
    monkeypatch.setattr(guest, "_run_state", "paused")
    monkeypatch.setattr(guest, "resume", lambda: asked.append(True))
    custody.stop()
    assert not custody.take_back(), "it did not run"
    assert asked == [True]


def test_after_the_intent_nobody_lets_it_go_on(guest: LeavingMemory, custody: Custody) -> None:
    """Two running guests, because an answer was late."""
    custody.stop()
    custody.intend()
    custody.take_back()
    assert not guest.runs
    assert custody.alive == "unknown"
    custody.close()
    assert find_record(SESSION.hex(), "source").step is Step.INTENT


def test_after_a_definite_no_it_goes_on(guest: LeavingMemory, custody: Custody) -> None:
    """A guest that runs nowhere, though the destination has refused it."""
    custody.stop()
    custody.intend()
    custody.refused()
    custody.take_back()
    assert guest.runs
    custody.close()
    assert not list(state_folder().iterdir())


def test_one_that_hangs_is_left_to_cleanup(
    guest: LeavingMemory, custody: Custody, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A guest that stands still for ever, and nobody knows that it should run."""

    def hang() -> None:
        raise GuestError("the guest does not answer")

    monkeypatch.setattr(guest, "resume", hang)
    custody.stop()
    assert not custody.take_back(), "it is told as running"
    assert custody.alive == "source"
    custody.close()
    assert not find_record(SESSION.hex(), "source").record.in_hand
    assert f"{SESSION.hex()} (source, guest): the guest goes on here" in cleanup()[0]
    assert not list(state_folder().iterdir())


def test_one_that_runs_and_has_something_left_to_undo(
    guest: LeavingMemory, custody: Custody, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A guest that runs, and is told as one that stands still; settings that stay changed."""
    resume = guest.resume

    def in_part() -> None:
        resume()
        raise GuestError("the settings were not taken back")

    monkeypatch.setattr(guest, "resume", in_part)
    custody.stop()
    assert custody.take_back(), "it is told as standing still"
    custody.close()
    assert not find_record(SESSION.hex(), "source").record.in_hand
    assert cleanup()[1]


def test_once_given_it_stays_where_it_is(guest: LeavingMemory, custody: Custody) -> None:
    """A guest that goes on at the source because something failed after the commit."""
    custody.stop()
    custody.intend()
    assert custody.given()
    custody.take_back()
    assert not guest.runs
    assert custody.alive == "destination"


def test_what_cannot_be_kept_is_not_settled(
    guest: LeavingMemory, custody: Custody, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A destination that forgets a session about which this end will have to ask."""
    custody.stop()
    custody.intend()

    def fail(*_: object) -> bool:
        raise MigrationError("no space left on device")

    monkeypatch.setattr("pipeline.records.store.SessionRecord.change", fail)
    assert not custody.given()
    assert custody.alive == "destination"
    custody.close()
    assert find_record(SESSION.hex(), "source").step is Step.INTENT
    assert not guest.runs


def test_without_a_record_there_is_no_migration(guest: LeavingMemory, custody: Custody) -> None:
    """A session that nobody can put right."""
    with pytest.raises(MigrationError, match="File exists"):
        Custody(guest, "guest", SESSION).open()
    custody.close()


def test_a_record_that_cannot_be_removed_is_no_failure(
    custody: Custody, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A guest that has left, called failed since its state folder is read-only by now."""

    def fail(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "unlink", fail)
    custody.close()
    monkeypatch.undo()
