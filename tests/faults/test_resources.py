"""Disks, descriptors and files run out in the middle: a clear end at both ends, nothing left."""

import os
import resource
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from pipeline.guests.base import GuestBlock
from pipeline.guests.file import FileGuest
from pipeline.guests.qemu.ram import why_no_room
from pipeline.result import Result
from pipeline.source.coordinator import Coordinator
from protocol.limits import PAGE_BYTES
from tests.faults.leaving import before_rounds, leave, synthetic_guest
from tests.pipeline.guests.helpers import wait_until
from tests.pipeline.monitor.talking import Client, listens
from tests.system.migrations import END_S, MIB, Command, listen, settings

MEMORY = 16 * MIB
FEW = [2, 4, 6]
"""Descriptors that are left when a process begins to set up: each time another step fails."""


def check_failure(here: Result, there: Result, reason: str) -> None:
    """Both ends give `reason`, in one line, and the guest is at the source."""
    assert (here.status, there.status) == ("failed", "failed")
    for told in (here.error_desc, there.error_desc):
        assert reason in str(told)
        assert "\n" not in str(told)
    assert here.guest_alive == "source"


@pytest.fixture
def small_disk(folder: Path) -> Iterator[Path]:
    """A file system with room for the guest, and not much more."""
    if os.geteuid():
        pytest.skip("only root mounts a file system")
    disk = folder / "disk"
    disk.mkdir()
    size = f"size={MEMORY + 2 * MIB}"
    command = ["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(disk)]
    mounted = subprocess.run(command, check=False, capture_output=True)
    if mounted.returncode:
        disk.rmdir()
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.decode()}")
    yield disk
    subprocess.run(["umount", disk], check=True)
    disk.rmdir()


def test_the_disk_is_full_at_the_destination(folder: Path, small_disk: Path) -> None:
    """A page that is told as applied and was never written; a file that stays, and fills it."""
    config = settings(to=small_disk / "memory")

    def fill(_: int) -> None:
        with (small_disk / "other").open("wb") as other:
            os.posix_fallocate(other.fileno(), 0, MEMORY)

    with listen(folder, config=config) as there, synthetic_guest(config) as guest:
        here = leave(config, there.uri, guest, at_first=lambda one: before_rounds(one, fill))
        reason = "guest memory cannot be written: No space left on device"
        check_failure(here, there.result(), reason)
        guest.statistics()
    assert [path.name for path in small_disk.iterdir()] == ["other"]


def test_a_machine_whose_memory_has_no_room(small_disk: Path) -> None:
    """A migration that fails in the middle, of which that could be known before."""
    with (small_disk / "ram").open("w+b") as ram:
        block = GuestBlock("ram", MEMORY // PAGE_BYTES, ram.fileno())
        assert why_no_room([block]) is None
        assert "no room for memory ram" in str(why_no_room([block] * 2))
        os.posix_fallocate(ram.fileno(), 0, MEMORY)
        assert why_no_room([block] * 2) is None


@pytest.mark.parametrize("few", FEW)
def test_the_destination_has_few_descriptors_left(folder: Path, few: int) -> None:
    """A destination that goes without a word, or leaves sockets and folders behind."""
    config = settings()
    with listen(folder, config=config) as there, synthetic_guest(config) as guest:
        uri = there.uri
        wait_until(lambda: len(psutil.Process(there.process.pid).children()) == 2)  # fork server
        leave_few(there, few)
        here = leave(config, uri, guest)
        check_failure(here, there.result(), "Too many open files")
        guest.statistics()


@pytest.mark.parametrize("few", [*FEW, 9, 12, 15])
def test_the_source_has_few_descriptors_left(folder: Path, few: int) -> None:
    """The same of a source, whose destination may not even have heard of it."""
    config, path = settings(), folder / "qmp"
    with (
        listen(folder, config=config) as there,
        Command(folder, "migrate", "--qmp", str(path), "--wait", config=config) as here,
    ):
        wait_until(lambda: listens(path), END_S)
        with Client(path) as client:
            leave_few(here, few)
            client.ask("migrate", uri=str(there.uri))
            client.wait_for("MIGRATION", status="failed")
            assert client.ask("query-status")["running"]
            client.ask("quit")
        result = here.result()
        assert (result.status, result.guest_alive) == ("failed", "source")
        assert "oo many open files" in str(result.error_desc)
        there.process.terminate()
        assert there.code() in (1, 130)


def leave_few(command: Command, few: int) -> None:
    process = psutil.Process(command.process.pid)
    most = process.num_fds() + few
    process.rlimit(resource.RLIMIT_NOFILE, (most, most))


def test_the_guests_file_shrinks(folder: Path) -> None:
    """A worker that dies by SIGBUS, or zeros that are sent for what is not there any more."""
    path = folder / "memory"
    path.write_bytes(os.urandom(MEMORY))
    config = settings(
        {"kind": "file", "path": str(path)}, parameters={"max-bandwidth": "8MiB"}, codec="none"
    )

    def shrink(coordinator: Coordinator) -> None:
        if coordinator.engine.dispatcher.applied:
            os.truncate(path, MEMORY // 4)

    with listen(folder, config=config) as there, closing(FileGuest(path, None)) as guest:
        here = leave(config, there.uri, guest, on_tick=shrink)
        check_failure(here, there.result(), "it has shrunk")
        assert "guest memory ends before page" in str(here.error_desc)
    path.unlink()
