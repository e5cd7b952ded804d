"""A Linux guest boots, works, and notices what happens to its files."""

import mmap
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from tests.pipeline.injection.victims import needs_uffd
from tests.qemu import debian
from tests.qemu.linux import Disk, Linux, cpio
from tests.qemu.machine import QEMU, Qemu, two_machines
from tests.qemu.moving import move, pair
from tests.qemu.pairs import config_of
from tests.system.migrations import Command

slow = pytest.mark.slow
BOOT_S = 60.0
"""4.5 s on a machine with 2 cores and other things to do."""
ROUND_S = 60.0
DISK_BYTES = 32 << 20
SLOW_BYTES_A_SECOND = 20_000_000
WAYS = 6
"""There and back, three times."""


@pytest.fixture(scope="module")
def linux() -> Linux:
    if shutil.which(QEMU) is None:
        pytest.skip(f"{QEMU} is not installed")
    try:
        return Linux(debian.kernel(), debian.busybox())
    except debian.Unavailable as error:
        pytest.skip(str(error))


@pytest.fixture
def reader(folder: Path, linux: Linux) -> Iterator[Linux]:
    """A guest that reads a disk all the time."""
    image = folder / "disk"
    image.write_bytes(os.urandom(DISK_BYTES))
    yield replace(linux, disk=Disk(image, debian.disk_drivers(linux.kernel)))
    image.unlink()


def wait_rounds(machine: Qemu, rounds: int = 1, of: str = "round") -> None:
    """Until it has looked at all of its files, or its disk, so many times, from now on."""
    serial, after = machine.serial, len(machine.lines())

    def looked() -> bool:
        ends = [line for line in serial.lines[after:] if line.text.startswith(f"{of} ")]
        return len(ends) > rounds  # the first one had begun before

    serial.wait(f"{rounds} {of}s", looked, ROUND_S)


def damage_files(machine: Qemu, text: bytes) -> int:
    """Change each page of its memory that begins with `text`; how many there are."""
    with machine.ram.open("r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
        places = [found.start() for found in re.finditer(re.escape(text), memory)]
        pages = [place for place in places if place % mmap.PAGESIZE == 0]
        for page in pages:
            memory[page] ^= 1
    return len(pages)


@slow
def test_it_boots_and_checks_its_files(folder: Path, linux: Linux) -> None:
    """A guest that finds fault with memory that nobody has touched."""
    with Qemu(folder, "here", linux) as here:
        here.wait_up(BOOT_S)
        wait_rounds(here)
        counters = [line.counter for line in here.serial.beats]
        assert counters == list(range(1, len(counters) + 1))
        assert (here.status(), here.bad()) == ("running", [])


@slow
def test_it_finds_a_file_that_is_damaged(folder: Path, linux: Linux) -> None:
    """A checksum that is never compared, or that is of what was read."""
    with Qemu(folder, "here", linux) as here:
        here.wait_up(BOOT_S)
        assert damage_files(here, b"kept 6\n" * 100) > 0
        wait_rounds(here)
        assert set(here.bad()) == {"6"}


@slow
def test_it_goes_on_where_it_was(folder: Path, linux: Linux) -> None:
    """A guest that does not bear to be moved, whoever moves it."""
    with pair(folder, linux) as (here, there):
        here.wait_up(BOOT_S)
        here.wait_beats(20)
        move(here, there)
        wait_rounds(there)
        assert here.gap(there)[1] == 1
        assert (here.bad(), there.bad()) == ([], [])


@slow
def test_it_goes_there_and_back_three_times(folder: Path, linux: Linux) -> None:
    """What only shows when a guest moves again: state that came once and does not leave."""
    with ExitStack() as machines:
        here = machines.enter_context(Qemu(folder, "0", linux))
        here.wait_up(BOOT_S)
        for way in range(WAYS):
            there = machines.enter_context(Qemu(folder, str(way + 1), linux, incoming=True))
            with Command(folder, "run", config=config_of(here, there)) as run:
                assert run.code() == 0, run.words
            wait_rounds(there)
            assert here.gap(there)[1] == 1
            assert (here.bad(), there.bad()) == ([], [])
            here = there


@contextmanager
def slow_disk(machine: Qemu, device: int) -> Iterator[None]:
    """What a machine reads from a device takes its time; the test is skipped where cgroup v1 does
    not give that: too little is in flight then for a tracker to miss any of it."""
    group, pid = Path(f"/sys/fs/cgroup/blkio/pageferry-test-{os.getpid()}"), machine.process.pid
    limit = f"{os.major(device)}:{os.minor(device)} {SLOW_BYTES_A_SECOND}"
    with ExitStack() as undo:
        try:
            group.mkdir()
            undo.callback(group.rmdir)
            (group / "blkio.throttle.read_bps_device").write_text(limit)
            (group / "cgroup.procs").write_text(str(pid))
            undo.callback((group.parent / "cgroup.procs").write_text, str(pid))
        except OSError as error:
            pytest.skip(f"reads cannot be slowed down here: {error}")
        yield


@slow
@needs_uffd
def test_direct_io_in_flight_is_not_lost(folder: Path, reader: Linux) -> None:
    """Pages that a disk fills behind the tracker's back, and nobody looks at after the stop."""
    with (
        two_machines(folder, reader) as (here, there),
        slow_disk(here, folder.stat().st_dev),
    ):
        here.wait_up(BOOT_S)
        wait_rounds(here, of="disk")
        with Command(folder, "run", config=config_of(here, there, tracker="uffd")) as run:
            assert run.code() == 0, run.words
            assert run.result().tracker == "uffd"
        wait_rounds(there, of="disk")
        assert here.gap(there)[1] == 1
        assert (here.bad(), there.bad()) == ([], [])


@pytest.mark.skipif(shutil.which("cpio") is None, reason="cpio is not installed")
def test_the_archive_is_one(tmp_path: Path) -> None:
    """An archive that only one kernel reads."""
    programs = {"bin/one": b"#!/bin/sh\n", "two": bytes(range(256)) * 3 + b"x"}
    subprocess.run(["cpio", "-id", "--quiet"], input=cpio(programs), cwd=tmp_path, check=True)
    assert {name: (tmp_path / name).read_bytes() for name in programs} == programs
    assert all((tmp_path / name).stat().st_mode & 0o777 == 0o755 for name in programs)


def test_a_package_that_is_nowhere_is_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tests that fail where there is no archive, or half of a package that stays in the cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(debian.Unavailable, match="apt-get"):
        debian.unpacked("pageferry-no-such-package")
    assert not list(tmp_path.rglob("*package*"))
