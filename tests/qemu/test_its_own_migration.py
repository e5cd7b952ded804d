"""The guest of the other tests can be moved, and notices what is not moved."""

import shutil
from pathlib import Path

import pytest

from tests.qemu.machine import QEMU
from tests.qemu.moving import copy_memory, load, move, pair, saved
from tests.qemu.sector import FIRST_PAGE, Guest
from tests.qemu.stamps import PAGE_BYTES

pytestmark = pytest.mark.skipif(shutil.which(QEMU) is None, reason=f"{QEMU} is not installed")
BUSY = Guest(dirty_rate=2000)


@pytest.mark.parametrize("machine", ["pc", "q35"])
def test_it_goes_on_where_it_was(folder: Path, machine: str) -> None:
    """A guest that starts anew, misses a tick, or is found in pieces."""
    with pair(folder, BUSY, machine) as (here, there):
        here.wait_beats(20)
        assert move(here, there) < 1 << 20, "memory has travelled with the devices"
        there.wait_beats(BUSY.ticks_of_a_pass)
        seconds, counted = here.gap(there)
        assert counted == 1
        assert 0 < seconds < 5
        assert (here.bad(), there.bad()) == ([], [])


def test_it_sees_what_was_not_copied(folder: Path) -> None:
    """A page that is stale, and that the self-check takes for right."""
    with pair(folder, BUSY) as (here, there):
        here.wait_beats()
        copy_memory(here, there)
        here.wait_beats(80)  # its whole working set has been overwritten
        here.monitor.ask("stop")
        state = saved(here)
        copy_memory(here, there, FIRST_PAGE * PAGE_BYTES)
        load(there, state)
        there.monitor.ask("cont")
        there.wait_beats(BUSY.ticks_of_a_pass, within_s=30)
        assert {int(page, 16) for page in there.bad()} == set(BUSY.working)
        assert here.gap(there)[1] == 1
