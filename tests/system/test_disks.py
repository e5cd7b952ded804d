"""Disks move with the memory: their last state is that of the moment in which the guest stood."""

import filecmp
import os
import re
import subprocess
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
from protocol.errors import ConfigError
from protocol.limits import PAGE_BYTES
from protocol.uri import Uri
from tests.faults.leaving import leave, synthetic_guest
from tests.leaks import processes_of
from tests.pipeline.guests.helpers import python, wait_until
from tests.system.migrations import MIB, Command, Destination, both_ends, migrate, nobody, settings
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
IDLE = {"kind": "synthetic", "memory": "4MiB", "workload": {"pattern": "idle"}}


def image(path: Path, size_bytes: int, seed: int = 1) -> Path:
    """Noise, and holes."""
    generator = np.random.default_rng(seed)
    with path.open("wb") as file:
        file.truncate(size_bytes)
        for start in range(0, size_bytes, 4 * MIB):
            os.pwrite(file.fileno(), generator.bytes(min(3 * MIB, size_bytes - start)), start)
    return path


def at(folder: Path, number: int = 0, **keys: Path) -> dict[str, str]:
    """A disk of the folder, as a configuration has it."""
    here, there = folder / f"disk{number}", folder / f"there{number}"
    made = {"path": here, "destination": there, **keys}
    return {name: str(path) for name, path in made.items()}


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


def differ(path: Path, base: Path, share: float) -> int:
    """Make a disk of a base, in which that share of pages is another; how many."""
    path.write_bytes(base.read_bytes())
    pages = path.stat().st_size // PAGE_BYTES
    chosen = np.random.default_rng(3).choice(pages, int(pages * share), replace=False)
    with path.open("r+b") as file:
        for page in chosen:
            os.pwrite(file.fileno(), os.urandom(PAGE_BYTES), int(page) * PAGE_BYTES)
    return len(chosen)


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


def refused(folder: Path, config: dict[str, Any], there: dict[str, Any] | None = None) -> str:
    """What is said at the source of a migration that fails before anything has moved."""
    destination = Destination(there or config, folder)
    here = migrate(Config.model_validate(config), destination.uri, nobody)
    destination.result()
    assert (here.status, here.guest_alive) == ("failed", "source")
    assert here.rounds == []
    assert here.error_desc is not None
    return here.error_desc


def test_another_base_is_seen_before_anything_moves(files: Path) -> None:
    """A disk of which the pages that were not sent are another guest's."""
    base, other = image(files / "base", 2 * MIB), image(files / "other", 2 * MIB, 9)
    differ(files / "disk0", base, 0.1)
    config = settings(IDLE, disks=[at(files, base=base)])
    there = settings(IDLE, disks=[at(files, base=other)])
    said = refused(files, config, there)
    assert f"base {other} is not what the source has as base of the disk" in said
    assert not (files / "there0").exists()


@pytest.mark.parametrize(
    ("there", "words"),
    [
        ([], "1 disks come, the configuration here lists 0"),
        ([{"path": "disk0", "destination": "there0"}], "disks.0.base"),
        ([{"path": "base", "base": "base"}], "is another one's, or a base"),
    ],
)
def test_a_destination_that_knows_of_none(
    files: Path, there: list[dict[str, str]], words: str
) -> None:
    """A guest that arrives without its disk."""
    base = image(files / "base", 2 * MIB)
    differ(files / "disk0", base, 0.1)
    listed = [{key: str(files / name) for key, name in one.items()} for one in there]
    config = settings(IDLE, disks=[at(files, base=base)])
    assert re.search(words, refused(files, config, settings(IDLE, disks=listed)))
    assert filecmp.cmp(base, image(files / "again", 2 * MIB), shallow=False)


def test_a_disk_that_somebody_writes_to_is_left_alone(files: Path) -> None:
    """Another guest's disk, of the same size, at the path that both machines have."""
    image(files / "disk0", 2 * MIB)
    there = image(files / "there0", 2 * MIB, 5)
    before = there.read_bytes()
    opens = (
        "import os, sys; os.open(sys.argv[1], os.O_RDWR); print(1, flush=True); sys.stdin.read()"
    )
    with python(opens, str(there)) as (process, _):
        said = refused(files, settings(IDLE, disks=[at(files)]))
        assert f"process {process.pid} can write to {there}: it is in use" in said
    assert there.read_bytes() == before


def test_no_base_is_written_over(files: Path) -> None:
    """The destination of one disk that is the base of the next one."""
    base = image(files / "base", 2 * MIB)
    before = base.read_bytes()
    differ(files / "disk0", base, 0.1)
    differ(files / "disk1", base, 0.1)
    disks = [at(files), at(files, 1, base=base)]
    swapped = [{**disks[0], "destination": str(base)}, disks[1]]
    said = refused(files, settings(IDLE, disks=disks), settings(IDLE, disks=swapped))
    assert f"disks.0.destination: {base} is another one's, or a base" in said
    assert base.read_bytes() == before


def test_a_file_of_another_size_is_left_alone(files: Path) -> None:
    """Somebody's image, cut to the size of another one."""
    image(files / "disk0", 2 * MIB)
    there = image(files / "there0", 3 * MIB, 5)
    before = there.read_bytes()
    said = refused(files, settings(IDLE, disks=[at(files)]))
    assert f"a disk of {2 * MIB} bytes comes, {there} has {3 * MIB}" in said
    assert there.read_bytes() == before


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


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: None, "cannot be opened: No such file"),
        (lambda path: path.mkdir(), "is not a regular file"),
        (lambda path: path.write_bytes(b"QFI\xfb" + bytes(4092)), "is a qcow2 image, which grows"),
        (lambda path: path.write_bytes(b"odd"), "has 3 bytes, expected a multiple of 4096, not 0"),
    ],
)
def test_what_is_no_disk(folder: Path, make: Any, words: str) -> None:  # noqa: ANN401
    """A traceback for a path that is misspelt."""
    disk = folder / "disk0"
    make(disk)
    uri = Uri("unix", path=str(folder / "control"))
    with pytest.raises(ConfigError, match=f"disks.0.path: {disk} {words}"):
        migrate(Config.model_validate(settings(IDLE, disks=[at(folder)])), uri, nobody)
    if disk.is_dir():
        disk.rmdir()
    disk.unlink(missing_ok=True)


def test_a_saved_guest_takes_none_along(files: Path) -> None:
    """A guest that is loaded without its disk."""
    image(files / "disk0", MIB)
    config = Config.model_validate(settings(IDLE, disks=[at(files)]))
    with pytest.raises(ConfigError, match="disks: a saved guest takes none along"):
        migrate(config, Uri("file", path=str(files / "saved")), nobody)


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


MAPS = """
import mmap, sys
with open(sys.argv[1], "r+b") as file:
    memory = mmap.mmap(file.fileno(), 0)
print(1, flush=True)
sys.stdin.read()
"""


def test_one_that_somebody_else_has_mapped(files: Path) -> None:
    """Writes that change no time of the file."""
    disk, config = image(files / "disk0", 2 * MIB), settings(IDLE, disks=[at(files)])
    nowhere = Uri("unix", path=str(files / "control"))
    with python(MAPS, str(disk)) as (process, _):
        here = migrate(Config.model_validate(config), nowhere, nobody)
    assert (here.status, here.guest_alive) == ("failed", "source")
    assert f"process {process.pid} has disk {disk} mapped for writing" in str(here.error_desc)


@pytest.mark.skipif(os.geteuid() != 0, reason="loop devices are made by root")
def test_a_file_that_the_kernel_has_is_left_alone(files: Path) -> None:
    """A file system that is mounted, overwritten."""
    image(files / "disk0", 2 * MIB)
    there = image(files / "there0", 2 * MIB, 5)
    before = there.read_bytes()
    made = subprocess.run(
        ["losetup", "-f", "--show", str(there)], capture_output=True, text=True, check=False
    )
    if made.returncode:
        pytest.skip(f"no loop device can be had: {made.stderr.strip()}")
    device = made.stdout.strip()
    try:
        said = refused(files, settings(IDLE, disks=[at(files)]))
    finally:
        subprocess.run(["losetup", "-d", device], check=True)
    assert f"{Path(device).name} has {there}: it is in use" in said
    assert there.read_bytes() == before


def test_nothing_is_changed_before_all_are_looked_at(files: Path) -> None:
    """The first of two images, lost for the second one."""
    base = image(files / "base", 2 * MIB)
    for number in (0, 1):
        differ(files / f"disk{number}", base, 0.1)
    there = image(files / "there0", 2 * MIB, 5)
    image(files / "there1", 3 * MIB, 6)
    before = there.read_bytes()
    disks = [at(files, 0, base=base), at(files, 1)]
    assert "there1 has" in refused(files, settings(IDLE, disks=disks))
    assert there.read_bytes() == before
