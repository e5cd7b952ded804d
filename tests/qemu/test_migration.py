"""A real QEMU moves through the pipeline: its guest goes on where it was, nothing damaged."""

from pathlib import Path
from typing import Any

import pytest

from tests.qemu.machine import Qemu
from tests.qemu.sector import Guest
from tests.system.migrations import Command, settings

GUEST = Guest(mib=64, working=range(1024, 2048), dirty_rate=2000, tick_ms=5)


def config(here: Qemu, there: Qemu, **keys: Any) -> dict[str, Any]:  # noqa: ANN401 - as YAML
    made = settings({"kind": "qemu", "qmp": str(here.qmp)}, **keys)
    return {**made, "destination": {"qmp": str(there.qmp)}}


@pytest.mark.parametrize("tracker", ["hash", "uffd"])
def test_it_moves(folder: Path, tracker: str) -> None:
    """A guest that starts anew, twice or nowhere, or whose memory was damaged on the way."""
    with Qemu(folder, "here", GUEST) as here, Qemu(folder, "there", GUEST, incoming=True) as there:
        here.wait_up()
        here.wait_beats(20)
        with Command(folder, "run", config=config(here, there, tracker=tracker)) as run:
            assert run.code() == 0, run.words
            result = run.result()
            print(run.words, result)
        there.wait_beats(GUEST.ticks_of_a_pass)
        assert (here.status(), there.status()) == ("postmigrate", "running")
        assert here.gap(there)[1] == 1
        assert not here.bad() + there.bad()
        assert result.tracker == tracker
