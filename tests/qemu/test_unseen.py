"""What changes a machine's memory and no mark of `uffd` shows it: found, or `uffd` not taken."""

import ctypes
import os
from pathlib import Path

import pytest

from protocol.limits import PAGE_BYTES
from tests.pipeline.guests.helpers import python, wait_until
from tests.pipeline.holding import HOLDS
from tests.pipeline.injection.victims import needs_uffd
from tests.qemu.machine import Qemu
from tests.qemu.pairs import GUEST, needs_qemu, pair
from tests.system.migrations import END_S, Command, settings

pytestmark = [needs_qemu, needs_uffd]
WRITTEN, PUNCHED = 0x40, 0x50
"""Pages below the first MiB, which the guest does not use."""
SLOW = {"max-bandwidth": "256KiB"}
KEEP_SIZE_PUNCH_HOLE = 3
DISK = ("-blockdev", "driver=null-co,node-name=direct,cache.direct=on")
BALLOON = ("-device", "virtio-balloon-pci")


def page_of(ram: Path, page: int) -> bytes:
    """What is there now."""
    with ram.open("rb") as file:
        return os.pread(file.fileno(), PAGE_BYTES, page * PAGE_BYTES)


def write_from_outside(ram: Path) -> None:
    """As a process that is not the machine does it."""
    with ram.open("r+b") as file:
        os.pwrite(file.fileno(), b"w" * PAGE_BYTES, WRITTEN * PAGE_BYTES)
        offset, length = (ctypes.c_long(n) for n in (PUNCHED * PAGE_BYTES, PAGE_BYTES))
        assert ctypes.CDLL(None).fallocate(file.fileno(), KEEP_SIZE_PUNCH_HOLE, offset, length) == 0


@pytest.mark.more
def test_nothing_that_uffd_misses_is_lost(folder: Path) -> None:
    """A page that another process has written, or a hole that was punched, after it was sent."""
    with pair(folder) as machines:
        with machines.here.ram.open("r+b") as file:
            os.pwrite(file.fileno(), b"p" * PAGE_BYTES, PUNCHED * PAGE_BYTES)
        config = machines.config(tracker="uffd", parameters=SLOW)
        with Command(folder, "run", config=config) as run:
            wait_until(lambda: page_of(machines.there.ram, PUNCHED) != bytes(PAGE_BYTES), END_S)
            write_from_outside(machines.here.ram)
            assert run.code() == 0, run.words
            assert run.result().verified is True
        assert page_of(machines.there.ram, WRITTEN) == b"w" * PAGE_BYTES
        assert page_of(machines.there.ram, PUNCHED) == bytes(PAGE_BYTES)
        machines.assert_moved(GUEST.ticks_of_a_pass)


def tracker_of(folder: Path, machine: Qemu, verify: str) -> str:
    """What would be taken, and why."""
    config = settings({"kind": "qemu", "qmp": str(machine.qmp)}, verify=verify)
    with Command(folder, "check", "--probe", config=config) as check:
        assert check.code() == 0, check.words
        lines = check.output.splitlines()
    return " ".join(line for line in lines if line.startswith("tracker"))


@pytest.mark.parametrize(("options", "reason"), [(DISK, "drive direct"), (BALLOON, "balloon")])
def test_uffd_is_not_taken_where_it_would_miss_something(
    folder: Path, options: tuple[str, ...], reason: str
) -> None:
    """`verify: frames`, which compares nothing, and direct I/O, or holes that a balloon makes."""
    with Qemu(folder, "here", GUEST, more=options) as machine:
        taken = tracker_of(folder, machine, "frames")
        assert "tracker: hash" in taken
        assert reason in taken
        assert "tracker: uffd" in tracker_of(folder, machine, "full")


def test_uffd_is_not_taken_where_others_can_write(folder: Path) -> None:
    """`verify: frames`, and a process that shares the memory."""
    with Qemu(folder, "here", GUEST) as machine:
        assert "tracker: uffd" in tracker_of(folder, machine, "frames")
        with python(HOLDS, str(machine.ram), "wm") as (process, _):
            taken = tracker_of(folder, machine, "frames")
        assert "tracker: hash" in taken
        assert f"process {process.pid} can write to block ram" in taken
