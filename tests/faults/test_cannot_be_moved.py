"""A guest that can be moved no more when it was stopped goes on where it is."""

from pathlib import Path

import pytest

from protocol.status import Status
from tests.faults.ends import RunningSource
from tests.faults.fake_destination import FakeDestination
from tests.faults.memories import LeavingMemory, random_words


@pytest.mark.timeout(30)
def test_an_obstacle_that_comes_with_the_stop(folder: Path) -> None:
    """A device that is plugged in behind the last look at a guest that runs."""

    def plug_in() -> None:
        guest.obstacle = "it has another device"

    guest = LeavingMemory(random_words(64), on_stop=plug_in)
    with (
        FakeDestination(folder) as there,
        RunningSource(there.uri, guest) as here,
    ):
        assert here.ended() is Status.FAILED
        assert "it has another device" in str(here.coordinator.error)
        assert guest.runs
