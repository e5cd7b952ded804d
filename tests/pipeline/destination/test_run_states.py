"""The run state that a guest had is the one that it has afterwards, and what runs is announced."""

import pytest

from protocol.status import Status
from tests.faults.ends import RunningReceiver, RunningSource
from tests.faults.memories import ArrivingMemory, LeavingMemory, random_words

pytestmark = pytest.mark.usefixtures("folder")


@pytest.mark.parametrize(
    ("state", "done"),
    [
        ("running", ["load", "start", "announce"]),
        ("paused", ["load", "keep"]),
        ("shutdown", ["load", "keep"]),
        ("guest-panicked", ["load", "keep"]),
    ],
)
def test_it_arrives_as_it_was(state: str, done: list[str]) -> None:
    """A guest that has crashed, and runs on with what is left of it; one that only passes for
    paused."""
    guest = LeavingMemory(random_words(48), run_state=state)
    with (
        RunningReceiver(ArrivingMemory(48)) as there,
        RunningSource(there.uri, guest) as here,
    ):
        assert (here.ended(), there.ended()) == (Status.COMPLETED, Status.COMPLETED)
        assert there.guest.done == done
        assert there.receiver.custody.runs_here == (state == "running")
        assert there.receiver.stopped_state == (state if state != "running" else "paused")


def test_after_a_failure_it_is_as_it_was() -> None:
    """A guest that has shut down, and is let go on because its migration failed."""
    guest = LeavingMemory(random_words(48), run_state="shutdown")
    with (
        RunningReceiver(ArrivingMemory(48, writable=False)) as there,
        RunningSource(there.uri, guest) as here,
    ):
        assert (here.ended(), there.ended()) == (Status.FAILED, Status.FAILED)
        assert not guest.runs
