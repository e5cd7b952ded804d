"""QEMU moves the guest by itself, but for its memory: so the guest is one that can be moved.

Memory is copied by the test, after the device state was saved (that writes memory) and before it is
loaded.
"""

import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.pipeline.guests.helpers import wait_until
from tests.qemu.machine import QEMU, Qemu
from tests.qemu.sector import FIRST_PAGE, Guest
from tests.qemu.stamps import PAGE_BYTES

pytestmark = pytest.mark.skipif(shutil.which(QEMU) is None, reason=f"{QEMU} is not installed")
BUSY = Guest(dirty_rate=2000)
CAPABILITIES = ("x-ignore-shared", "late-block-activate")


@contextmanager
def pair(folder: Path, machine: str = "pc") -> Iterator[tuple[Qemu, Qemu]]:
    """One with the guest, and one that waits for it."""
    with (
        Qemu(folder, "here", BUSY, machine=machine) as here,
        Qemu(folder, "there", BUSY, machine=machine, incoming=True) as there,
    ):
        for end in (here, there):
            states = [{"capability": name, "state": True} for name in CAPABILITIES]
            end.monitor.ask("migrate-set-capabilities", capabilities=states)
        here.wait_beats(20)
        yield here, there


def saved(here: Qemu) -> bytes:
    """The device state of a machine that is stopped."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(here.folder / "out"))
        listener.listen()
        here.monitor.ask("migrate", uri=f"unix:{here.folder / 'out'}")
        connection, _ = listener.accept()
        with connection, connection.makefile("rb") as stream:
            return stream.read()


def load(there: Qemu, state: bytes) -> None:
    """The device state into a machine that waits, which then stands still."""
    path = there.folder / "in"
    there.monitor.ask("migrate-incoming", uri=f"unix:{path}")
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(path))
        connection.sendall(state)
    wait_until(lambda: there.status() != "inmigrate")


def copy_memory(here: Qemu, there: Qemu, pages: int = BUSY.pages) -> None:
    """The first `pages` of it, into the file that the other machine has mapped."""
    with here.ram.open("rb") as source, there.ram.open("r+b") as target:
        target.write(source.read(pages * PAGE_BYTES))


@pytest.mark.parametrize("machine", ["pc", "q35"])
def test_the_guest_goes_on_where_it_was(folder: Path, machine: str) -> None:
    """A guest that starts anew, misses a tick, or is found in pieces."""
    with pair(folder, machine) as (here, there):
        here.monitor.ask("stop")
        state = saved(here)
        copy_memory(here, there)
        load(there, state)
        assert (here.status(), there.status()) == ("postmigrate", "paused")
        assert len(state) < 1 << 20, "memory has travelled with the devices"
        there.monitor.ask("cont")
        there.wait_beats(BUSY.ticks_of_a_pass)
        seconds, counted = here.gap(there)
        assert counted == 1
        assert 0 < seconds < 5
        assert (here.bad(), there.bad()) == ([], [])


def test_the_guest_sees_what_was_not_copied(folder: Path) -> None:
    """A page that is stale, and that the self-check takes for right."""
    with pair(folder) as (here, there):
        copy_memory(here, there)
        here.wait_beats(80)  # its whole working set has been overwritten
        here.monitor.ask("stop")
        state = saved(here)
        copy_memory(here, there, FIRST_PAGE)
        load(there, state)
        there.monitor.ask("cont")
        there.wait_beats(BUSY.ticks_of_a_pass, within_s=30)
        assert {int(page, 16) for page in there.bad()} == set(BUSY.working)
        assert here.gap(there)[1] == 1
