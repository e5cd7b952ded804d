"""`run` is killed: the destination that it started ends, too, whatever it was waiting for."""

import signal
from pathlib import Path

import pytest

from pipeline.leftovers.cleanup import cleanup
from tests.leaks import processes_of
from tests.pipeline.guests.helpers import python, wait_until
from tests.system.migrations import Command, settings

SLOW = settings(parameters={"max-bandwidth": "2MiB"})


@pytest.mark.parametrize("moment", ["starting", "moving"])
def test_nobody_is_left_behind(folder: Path, moment: str) -> None:
    """A destination that listens for ever, for a source that never comes; files that stay."""
    with Command(folder, "run", config=SLOW) as command:
        if moment == "moving":
            command.wait_for("round 1")
        else:
            wait_until(lambda: len(processes_of(folder)) > 1)
        command.process.send_signal(signal.SIGKILL)
        command.process.wait()
        wait_until(lambda: not processes_of(folder), 10)
    assert list(folder.glob("pageferry-*"))
    assert cleanup()[1]


ORPHAN = """
import signal
from pipeline.signals import end_with
signal.signal(signal.SIGTERM, lambda *_: None)
print("up", flush=True)
end_with(-1)
"""


def test_a_destination_that_has_not_begun_ends_too() -> None:
    """One whose parent died before exec, which the parent's own handler heard for it."""
    with python(ORPHAN) as (child, _):
        assert child.wait(5) == -signal.SIGTERM
