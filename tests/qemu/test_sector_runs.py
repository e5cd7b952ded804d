"""The guest of the other tests does what they take for granted."""

import shutil
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from tests.qemu.machine import QEMU, Qemu
from tests.qemu.sector import FIRST_PAGE, Guest
from tests.qemu.stamps import damage, overwritten, stamps

pytestmark = pytest.mark.skipif(shutil.which(QEMU) is None, reason=f"{QEMU} is not installed")
IDLE = Guest()
BUSY = Guest(dirty_rate=2000)
BOOT_S = 5.0
"""0.3 s on a machine that has nothing else to do."""


@pytest.mark.parametrize("machine", ["pc", "q35"])
def test_it_boots_stamps_all_and_counts(folder: Path, machine: str) -> None:
    """A guest that is not there in time, leaves a page alone, or stumbles in its counting."""
    with Qemu(folder, "here", IDLE, machine=machine) as here:
        here.wait_up(BOOT_S)
        here.wait_beats(IDLE.ticks_of_a_pass + 50)
        counters = [line.counter for line in here.lines() if line.counter is not None]
        assert counters == list(range(1, len(counters) + 1))
        assert counters[-1] <= here.counter()
        pages = np.arange(FIRST_PAGE, IDLE.pages, dtype=np.uint32)
        once = np.ones_like(pages)
        assert np.array_equal(stamps(here.ram, IDLE), np.stack([pages, once] * 2, axis=1))
        assert (here.status(), here.bad()) == ("running", [])


@pytest.mark.parametrize("tick_ms", [10.0, 5.0, 2.0])
def test_the_heartbeat_keeps_its_time(folder: Path, tick_ms: float) -> None:
    """A gap that is measured in heartbeats of another length."""
    with Qemu(folder, "here", Guest(tick_ms=tick_ms)) as here:
        here.wait_beats(10)
        here.wait_beats(round(1000 / tick_ms))
        beats = here.serial.beats[10:]
        apart = np.diff([line.at for line in beats]) * 1e3
        assert 0.8 * tick_ms < np.median(apart) < 1.2 * tick_ms


@pytest.mark.parametrize("guest", [BUSY, Guest(dirty_rate=20_000)], ids=["2000", "20000"])
def test_the_rate_is_right(folder: Path, guest: Guest) -> None:
    """A busy guest that is not."""
    with Qemu(folder, "here", guest) as here:
        here.wait_beats(10)
        before, since = overwritten(here.ram, guest), time.monotonic()
        here.wait_beats(200)
        seconds, pages = time.monotonic() - since, overwritten(here.ram, guest) - before
        assert pages / seconds == pytest.approx(guest.dirty_rate, rel=0.1)
        assert here.bad() == []


def test_an_idle_guest_writes_nothing_and_leaves_the_processor_alone(folder: Path) -> None:
    """An idle guest that is busy waiting, or has its pages dirtied by looking at them."""
    with Qemu(folder, "here", IDLE) as here:
        here.wait_beats(10)
        process = psutil.Process(here.process.pid)
        before, since = sum(process.cpu_times()[:2]), time.monotonic()
        here.wait_beats(100)
        assert sum(process.cpu_times()[:2]) - before < 0.5 * (time.monotonic() - since)
        assert overwritten(here.ram, IDLE) == 0


@pytest.mark.parametrize(
    "page", [FIRST_PAGE, BUSY.working.start, BUSY.working.stop, BUSY.pages - 1]
)
def test_a_damaged_page_is_found(folder: Path, page: int) -> None:
    """A self-check that looks past a page, or past its end."""
    with Qemu(folder, "here", BUSY) as here:
        here.wait_beats(10)
        assert here.bad() == []
        damage(here.ram, page)
        here.wait_beats(BUSY.ticks_of_a_pass)
        assert set(here.bad()) == {f"{page:08X}"}
        before = here.counter()
        here.wait_beats()
        assert here.counter() > before


def test_it_stops_and_goes_on(folder: Path) -> None:
    """Heartbeats of a machine that stands still, or work that is made up for after it."""
    with Qemu(folder, "here", BUSY) as here:
        here.wait_beats(10)
        here.monitor.ask("stop")
        assert here.status() == "paused"
        stands, counter = overwritten(here.ram, BUSY), here.counter()
        with pytest.raises(AssertionError, match="no 2 heartbeats"):
            here.wait_beats(2, within_s=1.0)
        assert overwritten(here.ram, BUSY) == stands
        here.monitor.ask("cont")
        here.wait_beats(2)
        assert here.counter() <= counter + 10
        assert overwritten(here.ram, BUSY) < stands + 1000
        assert here.bad() == []
