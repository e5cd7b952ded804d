"""Disks move with the memory: their last state is that of the moment in which the guest stood."""

import filecmp
import os
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.config.model import Config
from pipeline.leftovers.cleanup import cleanup
from pipeline.result import Result
from pipeline.source.coordinator import Coordinator
from pipeline.source.departures import make_guest
from protocol.limits import PAGE_BYTES
from tests.faults.leaving import leave, synthetic_guest
from tests.leaks import processes_of
from tests.pipeline.guests.helpers import python, wait_until
from tests.system.disks import IDLE, at, differ, image
from tests.system.migrations import MIB, Command, Destination, both_ends, settings
from tests.system.test_synthetic_guest import WAYS, assert_moved

WRITES_BOTH = """
import mmap, os, sys, time
memory_file, disk = open(sys.argv[1], "r+b"), os.open(sys.argv[2], os.O_RDWR)
memory, pages, pause = mmap.mmap(memory_file.fileno(), 0), int(sys.argv[3]), float(sys.argv[4])
count = 0
while True:
    count += 1
    for page in range(pages):
        stamp = count.to_bytes(8, "little")
        os.pwrite(disk, stamp, page * 8192)
        memory[page * 8192 : page * 8192 + 8] = stamp
        time.sleep(pause if count > 1 else 0)
    if count == 1:
        print("up", flush=True)
"""
"""The disk is written first: it is never behind memory, and one write ahead at most."""


@contextmanager
def written(folder: Path, mib: tuple[int, int], pages: int, pause_s: float) -> Iterator[int]:
    """Memory and a disk of so many MiB, and the pid of who writes to so many pages of both."""
    memory, disk = image(folder / "memory", mib[0] * MIB), image(folder / "disk0", mib[1] * MIB, 2)
    given = (str(memory), str(disk), str(pages), str(pause_s))
    with python(WRITES_BOTH, *given) as (process, _):
        yield process.pid


def stamps(path: Path, pages: int) -> list[int]:
    """What its writer has written last, page for page."""
    whole = np.fromfile(path, np.uint64)
    return [int(one) for one in whole[: pages * 1024 : 1024]]


def assert_consistent(folder: Path, pages: int) -> None:
    """Both are as they are at the source, whose writer stands still, and belong together."""
    assert filecmp.cmp(folder / "memory", folder / "there", shallow=False)
    assert filecmp.cmp(folder / "disk0", folder / "there0", shallow=False)
    ahead = np.subtract(stamps(folder / "there0", pages), stamps(folder / "there", pages))
    assert set(ahead) <= {0, 1}
    assert sum(ahead) <= 1


def moved(folder: Path, pid: int, **keys: Any) -> Result:  # noqa: ANN401
    """The writer's memory and disk, to the destination."""
    guest = {"kind": "file", "path": str(folder / "memory"), "pid": pid}
    config = settings(guest, to=folder / "there", disks=[at(folder)], **keys)
    here, there = both_ends(config, folder)
    assert here.error_desc is None
    assert (here.status, there.status) == ("completed", "completed")
    return here


@pytest.mark.parametrize("verify", ["full", "frames", "off"])
@pytest.mark.parametrize("codec", ["none", "zstd"])
def test_memory_and_disk_belong_together(files: Path, verify: str, codec: str) -> None:
    """A disk that is older than the memory, or newer."""
    with written(files, (8, 24), 500, 0.0005) as pid:
        here = moved(files, pid, verify=verify, codec=codec)
        assert_consistent(files, 500)
    assert here.disk is not None
    assert here.ram is not None
    assert (here.disk.total, here.disk.remaining, here.ram.total) == (24 * MIB, 0, 8 * MIB)
    assert here.disk.transferred > 0
    assert here.ram.remaining == 0


@pytest.mark.slow
def test_a_disk_of_a_gib(files: Path) -> None:
    """A disk that does not get on beside memory, or the other way round."""
    with written(files, (512, 1024), 20_000, 0.0002) as pid:
        moved(files, pid, parameters={"downtime-limit": 2000})
        assert_consistent(files, 20_000)


@pytest.mark.parametrize(("tracker", "verify"), WAYS)
def test_a_synthetic_guest_takes_disks_along(files: Path, tracker: str, verify: str) -> None:
    """Two disks in each other's place; holes that are none; a tracker that knows no files."""
    for number in (0, 1):
        image(files / f"disk{number}", (number + 3) * MIB, number)
    disks = [at(files, 0), at(files, 1)]
    config = settings(tracker=tracker, verify=verify, disks=disks, capabilities={"xbzrle": True})
    here, there = both_ends(config, files)
    assert_moved(here, there)
    for number in (0, 1):
        assert filecmp.cmp(files / f"disk{number}", files / f"there{number}", shallow=False)
        blocks = [(files / f"{name}{number}").stat().st_blocks for name in ("there", "disk")]
        assert blocks[0] <= blocks[1]


@pytest.mark.parametrize("verify", ["full", "frames"])
def test_only_what_differs_from_a_base_moves(files: Path, verify: str) -> None:
    """All of a disk, of which the other end has nearly all."""
    base, size = image(files / "base", 64 * MIB), 64 * MIB
    count = differ(files / "disk0", base, 0.03)
    config = settings(IDLE, codec="none", verify=verify, disks=[at(files, base=base)])
    here, there = both_ends(config, files)
    assert_moved(here, there)
    assert filecmp.cmp(files / "disk0", files / "there0", shallow=False)
    assert here.disk is not None
    assert count * PAGE_BYTES <= here.disk.transferred <= 0.04 * size


def test_a_disk_can_have_grown_since_its_base(files: Path) -> None:
    """Zeros where the base had something, something behind its end, and one that is odd."""
    base = image(files / "base", 4 * MIB)
    with base.open("ab") as file:
        file.write(b"odd")
    disk = files / "disk0"
    disk.write_bytes(bytes(2 * MIB) + base.read_bytes()[2 * MIB : 4 * MIB] + os.urandom(MIB))
    config = settings(IDLE, disks=[at(files, base=base)])
    here, there = both_ends(config, files)
    assert_moved(here, there)
    assert filecmp.cmp(disk, files / "there0", shallow=False)


def test_what_the_file_held_does_not_show_through(files: Path) -> None:
    """Old content where the disk has holes, or zeros."""
    image(files / "disk0", 9 * MIB)
    image(files / "there0", 9 * MIB, 8)
    assert_moved(*both_ends(settings(IDLE, disks=[at(files)]), files))
    assert filecmp.cmp(files / "disk0", files / "there0", shallow=False)


def test_one_that_grows_ends_the_migration(files: Path) -> None:
    """An image whose end does not travel."""
    disk, config = image(files / "disk0", 2 * MIB), settings(IDLE, disks=[at(files)])
    there = Destination(config, files)
    with synthetic_guest(config) as guest:
        save = guest.save_devices

        def grow() -> Any:  # noqa: ANN401
            os.truncate(disk, 3 * MIB)
            return save()

        guest.save_devices = grow  # type: ignore[method-assign]
        here = leave(config, there.uri, guest)
        assert (here.status, here.guest_alive) == ("failed", "source")
        assert "only images that keep their size move" in str(here.error_desc)
        assert guest.run_state() == "running"
    there.result()
    assert not (files / "there0").exists()


def behind_the_last_page(coordinator: Coordinator, do: Callable[[], object]) -> None:
    """Call `do` once the last round is applied."""
    engine = coordinator.engine
    fence = engine.fence

    def watched() -> None:
        fence()
        if engine.dispatcher.final:
            do()

    engine.fence = watched  # type: ignore[method-assign]


@pytest.mark.parametrize("guest", [IDLE, "quiet"])
@pytest.mark.parametrize("verify", ["full", "frames"])
def test_one_that_is_written_behind_the_stop(files: Path, guest: Any, verify: str) -> None:  # noqa: ANN401
    """A block job, or a write in flight, that memory knows of and the disk does not."""
    disk, memory = image(files / "disk0", 2 * MIB), image(files / "memory", MIB)
    kind = {"kind": "file", "path": str(memory)} if guest == "quiet" else guest
    config = settings(kind, to=files / "there", verify=verify, disks=[at(files)])
    if guest != "quiet":
        config["destination"] = {}
    there, written = Destination(config, files), list[int]()

    def write() -> None:
        with disk.open("r+b") as file:
            written.append(os.pwrite(file.fileno(), b"late", MIB))

    leaving = make_guest(Config.model_validate(config))
    try:
        here = leave(
            config, there.uri, leaving, at_first=lambda source: behind_the_last_page(source, write)
        )
    finally:
        leaving.close()
    there.result()
    assert written
    assert (here.status, here.guest_alive) == ("failed", "source")
    assert re.search(
        "was written while the guest stood still|is being written", here.error_desc or ""
    )


def test_a_disk_is_flushed_before_the_guest_starts(
    files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A guest whose disk is still in memory when the power fails."""
    image(files / "disk0", 2 * MIB)
    flushed: list[str] = []

    def note(fd: int) -> None:
        flushed.append(str(Path(f"/proc/self/fd/{fd}").readlink()))
        real(fd)

    real = os.fdatasync
    monkeypatch.setattr(os, "fdatasync", note)
    assert_moved(*both_ends(settings(IDLE, disks=[at(files)]), files))
    assert str(files / "there0") in flushed


def test_a_killed_migration_leaves_no_disk(files: Path) -> None:
    """A file of 1 TiB that nobody knows of."""
    image(files / "disk0", 8 * MIB)
    config = settings(IDLE, parameters={"max-bandwidth": "1MiB"}, disks=[at(files)])
    with ExitStack() as stack:
        run = stack.enter_context(Command(files, "run", config=config))
        run.wait_for("round 1")
        assert (files / "there0").exists()
        for process in processes_of(files):
            process.kill()
        run.process.wait()
        wait_until(lambda: not processes_of(files))
    _, whole = cleanup()
    assert whole
    assert not (files / "there0").exists()
    assert (files / "disk0").stat().st_size == 8 * MIB


@pytest.mark.parametrize("where", ["gone", "another"])
def test_a_destination_that_loses_its_name(files: Path, where: str) -> None:
    """A disk that is complete, and that nobody can open."""
    image(files / "disk0", 2 * MIB)
    config, there = settings(IDLE, disks=[at(files)]), files / "there0"

    def lose() -> None:
        there.unlink()
        if where == "another":
            there.write_bytes(bytes(2 * MIB))

    destination = Destination(config, files)
    with synthetic_guest(config) as guest:
        here = leave(
            config,
            destination.uri,
            guest,
            at_first=lambda source: behind_the_last_page(source, lose),
        )
        assert guest.run_state() == "running"
    assert "is not the file any more that the disk has come to" in str(here.error_desc)
    destination.result()


def test_a_write_while_it_waits_for_the_commit(files: Path) -> None:
    """Minutes in which nobody looks."""
    disk = image(files / "disk0", 2 * MIB)
    config = settings(IDLE, disks=[at(files)], capabilities={"pause-before-switchover": True})
    there = Destination(config, files)

    def look(coordinator: Coordinator) -> None:
        if coordinator._status.status == "pre-switchover" and not coordinator.go_on.is_set():
            with disk.open("r+b") as file:
                os.pwrite(file.fileno(), b"late", MIB)
            coordinator.go_on.set()

    with synthetic_guest(config) as guest:
        here = leave(config, there.uri, guest, on_tick=look)
        assert (here.status, guest.run_state()) == ("failed", "running")
    assert "was written while the guest stood still" in str(here.error_desc)
    there.result()
