"""Frames leave, heartbeats come, nothing is applied: a lost data connection is noticed."""

from pathlib import Path

import pytest

from pipeline.source import overdue
from protocol.status import Status
from tests.faults.ends import RunningSource
from tests.faults.fake_destination import FakeDestination
from tests.faults.memories import LeavingMemory, random_words


def test_a_destination_that_never_applies(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A migration that waits for ever, since the other end says that it is alive."""
    monkeypatch.setattr(overdue, "FIRST_NS", 300_000_000)
    monkeypatch.setattr(overdue, "SLOWEST", 1e9)
    with (
        FakeDestination(folder, lambda _: 0) as there,
        RunningSource(there.uri, LeavingMemory(random_words(64))) as here,
    ):
        assert here.ended() is Status.FAILED
        assert "frame 1 did not arrive, redone 3 times: the connection of lane 0 was cut" in str(
            here.coordinator.error
        )
        assert here.guest.runs
