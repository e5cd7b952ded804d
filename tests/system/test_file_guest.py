"""Memory that is a file: what arrives is what was there, byte for byte and hole for hole."""

import filecmp
import mmap
import os
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import psutil
import pytest

from pipeline.config.model import Config
from pipeline.progress import Progress
from pipeline.result import Result, ratio
from protocol.errors import PeerLost
from protocol.limits import PAGE_BYTES
from tests.pipeline.guests.helpers import python, wait_until
from tests.pipeline.holding import HOLDS
from tests.pipeline.source.test_tracking import SEES_ALL
from tests.system.migrations import MIB, Command, Destination, both_ends, migrate, settings

CODECS = ("none", "zlib", "zstd", "lz4")
WRITES_ALL_THE_TIME = """
import mmap, sys, time
with open(sys.argv[1], "r+b") as file:
    memory = mmap.mmap(file.fileno(), 0)
print("up", flush=True)
count = 0
while True:
    count += 1
    for start in range(0, 64 * 4096, 4096):
        memory[start : start + 8] = count.to_bytes(8, "little")
    time.sleep(0.002)
"""


@pytest.fixture
def shm() -> Iterator[Path]:
    with TemporaryDirectory(prefix="t-", dir="/dev/shm") as name:
        yield Path(name)


def image(path: Path, size_bytes: int = 8 * MIB) -> Path:
    """Noise, text, zeros that exist and holes, in runs of one to a few hundred pages."""
    generator = np.random.default_rng(7)
    with path.open("wb") as file:
        file.truncate(size_bytes)
        page = 0
        while page < size_bytes // PAGE_BYTES:
            kind, count = generator.integers(4), int(generator.integers(1, 300))
            count = min(count, size_bytes // PAGE_BYTES - page)
            if kind < 3:
                text = b"the memory of a guest " * 187
                noise = generator.bytes(PAGE_BYTES * count)
                made = (noise, text[:PAGE_BYTES] * count, bytes(PAGE_BYTES * count))[kind]
                os.pwrite(file.fileno(), made, page * PAGE_BYTES)
            page += count
    return path


def file_guest(path: Path, pid: int | None = None) -> dict[str, Any]:
    return {"kind": "file", "path": str(path), "pid": pid}


def assert_same(result: tuple[Result, Result], source: Path, target: Path) -> None:
    """Completed at both ends, and the same bytes in no more blocks."""
    here, there = result
    assert here.error_desc is None
    assert (here.status, there.status) == ("completed", "completed")
    assert filecmp.cmp(source, target, shallow=False)
    assert target.stat().st_blocks <= source.stat().st_blocks


def test_the_ratio_is_one_while_it_runs_and_in_the_end(folder: Path, shm: Path) -> None:
    """A table that counts pages without content, and progress and metrics that do not."""
    config = settings(file_guest(image(shm / "source")), to=shm / "target")
    seen: list[Progress] = []
    there = Destination(config, folder)
    here = migrate(Config.model_validate(config), there.uri, seen.append)
    assert there.result().status == "completed"
    assert here.ram is not None
    assert here.ram.duplicate
    assert ratio(here) == seen[-1].ratio


@pytest.mark.parametrize("codec", CODECS)
def test_every_codec_brings_every_byte(folder: Path, shm: Path, codec: str) -> None:
    """A codec whose two halves do not fit; a batch that did not shrink taken for one that did."""
    source, target = image(shm / "source"), shm / "target"
    result = both_ends(settings(file_guest(source), to=target, codec=codec), folder)
    assert_same(result, source, target)
    assert result[0].verified is True
    assert target.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("verify", ["frames", "off"])
def test_nothing_is_lost_where_nothing_is_verified(folder: Path, shm: Path, verify: str) -> None:
    """Memory that is right only because the verification sent it once more."""
    source, target = image(shm / "source"), shm / "target"
    result = both_ends(settings(file_guest(source), to=target, verify=verify), folder)
    assert_same(result, source, target)
    assert result[0].verified == {"frames": "frames", "off": None}[verify]


@pytest.mark.parametrize(
    ("target_bytes", "verify"),
    [(4 * MIB, "full"), (8 * MIB, "full"), (8 * MIB, "off"), (12 * MIB, "off")],
)
def test_what_was_there_before_never_shows_through(
    folder: Path, shm: Path, target_bytes: int, verify: str
) -> None:
    """Old bytes where the source has a hole or a zero page, or behind its end."""
    source, target = image(shm / "source"), shm / "target"
    target.write_bytes(b"\xaa" * target_bytes)
    result = both_ends(settings(file_guest(source), to=target, verify=verify), folder)
    assert_same(result, source, target)


def test_holes_stay_holes(folder: Path, shm: Path) -> None:
    """A hole that is read, sent or written: memory that nobody used, used."""
    source, target = shm / "source", shm / "target"
    with source.open("wb") as file:
        file.truncate(1 << 30)
        for page in (0, 777, 200_000):
            os.pwrite(file.fileno(), b"x" * PAGE_BYTES, page * PAGE_BYTES)
    blocks = source.stat().st_blocks
    result = both_ends(settings(file_guest(source), to=target), folder)
    assert_same(result, source, target)
    assert source.stat().st_blocks == blocks
    assert [one.pages for one in result[0].rounds] == [3, 0]


def test_a_file_that_is_all_holes(folder: Path, shm: Path) -> None:
    """A first round of no pages that waits for its last frame."""
    source, target = shm / "source", shm / "target"
    source.touch()
    os.truncate(source, 8 * MIB)
    target.write_bytes(b"\xaa" * 8 * MIB)
    result = both_ends(settings(file_guest(source), to=target), folder)
    assert_same(result, source, target)
    assert target.stat().st_blocks == 0


@contextmanager
def mapped(path: Path) -> Iterator[mmap.mmap]:
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapping:
        yield mapping


def test_a_mapped_file_is_filled_in_place(folder: Path, shm: Path) -> None:
    """A file replaced, or cut to nothing first: who has it mapped would die of SIGBUS."""
    source, target = image(shm / "source"), shm / "target"
    target.write_bytes(b"\xaa" * 8 * MIB)
    with mapped(target) as mapping:
        assert_same(both_ends(settings(file_guest(source), to=target), folder), source, target)
        assert mapping[:] == source.read_bytes()


def test_a_mapped_file_is_never_truncated(folder: Path, shm: Path) -> None:
    """A larger file made smaller under the machine that has it mapped."""
    source, target = image(shm / "source", 4 * MIB), shm / "target"
    target.write_bytes(b"\xaa" * 8 * MIB)
    with mapped(target) as mapping:
        here, there = both_ends(settings(file_guest(source), to=target), folder)
        assert (here.status, there.status) == ("failed", "failed")
        assert "never truncated" in str(here.error_desc)
        assert mapping[:] == b"\xaa" * 8 * MIB


def test_the_writer_is_stopped_and_stays_so(folder: Path, shm: Path) -> None:
    """Two copies at work: the writer goes on at the source after its memory has left."""
    source, target = image(shm / "source"), shm / "target"
    with python(WRITES_ALL_THE_TIME, str(source)) as (writer, _):
        result = both_ends(settings(file_guest(source, writer.pid), to=target), folder)
        assert psutil.Process(writer.pid).status() == psutil.STATUS_STOPPED
        assert_same(result, source, target)
        assert len(result[0].rounds) >= 2
        assert source.read_bytes()[:8] != bytes(8)


def test_the_writer_runs_on_when_the_switch_over_fails(folder: Path, shm: Path) -> None:
    """A writer left stopped by a migration that failed after the stop."""
    source, target = image(shm / "source"), shm / "target"
    with python(WRITES_ALL_THE_TIME, str(source)) as (writer, _):
        process = psutil.Process(writer.pid)

        def fail_once_it_is_stopped() -> None:
            if process.status() == psutil.STATUS_STOPPED:
                raise PeerLost("cut by the test")

        config = settings(file_guest(source, writer.pid), to=target)
        here, there = both_ends(config, folder, watch=fail_once_it_is_stopped)
        assert (here.status, here.error_desc) == ("failed", "cut by the test")
        assert "the source failed: cut by the test" in str(there.error_desc)
        before = source.read_bytes()[:8]
        wait_until(lambda: source.read_bytes()[:8] != before)
        assert not target.exists()


def test_a_quiet_file_that_is_not_quiet(folder: Path, shm: Path) -> None:
    """A copy that never was the file's content at any one time, called verified."""
    source, target = image(shm / "source"), shm / "target"
    with source.open("r+b") as file:

        def write() -> None:
            os.pwrite(file.fileno(), time.monotonic_ns().to_bytes(8, "little"), 0)

        here, there = both_ends(settings(file_guest(source), to=target), folder, watch=write)
    assert (here.status, there.status) == ("failed", "failed")
    assert here.error_desc == f"{source} is being written"
    assert here.verified is False
    assert not target.exists()


@SEES_ALL
def test_a_quiet_file_that_somebody_opens_to_write(folder: Path, shm: Path) -> None:
    """The same, where nothing is looked at twice: found by who has it open then."""
    source, target = image(shm / "source"), shm / "target"
    with ExitStack() as opened:

        @cache
        def open_once() -> None:
            opened.enter_context(python(HOLDS, str(source), "w"))

        config = settings(file_guest(source), to=target, verify="frames")
        here, there = both_ends(config, folder, watch=open_once)
    assert (here.status, there.status) == ("failed", "failed")
    assert here.error_desc == f"{source} is being written"
    assert here.tracker == "none"
    assert not target.exists()


@SEES_ALL
def test_a_quiet_file_that_somebody_wrote_to_and_closed(folder: Path, shm: Path) -> None:
    """The same, where who did it is gone at both looks."""
    source, target = image(shm / "source"), shm / "target"

    @cache
    def write_once() -> None:
        with source.open("r+b") as file:
            os.pwrite(file.fileno(), b"written", 4096)

    config = settings(file_guest(source), to=target, verify="frames")
    here, there = both_ends(config, folder, watch=write_once)
    assert (here.status, there.status) == ("failed", "failed")
    assert here.error_desc == f"{source} is being written"


@pytest.mark.parametrize("after_s", [0.02, 0.1])
def test_a_signal_that_comes_too_late_cancels_nothing(
    folder: Path, shm: Path, after_s: float
) -> None:
    """ "cancelled" of a guest that was given away: its user lets the source go on."""
    memory = image(shm / "memory")
    with python(WRITES_ALL_THE_TIME, str(memory)) as (writer, _):
        config = settings(file_guest(memory, writer.pid), to=shm / "there")
        with Command(folder, "run", config=config) as run:
            run.wait_for("completed")
            time.sleep(after_s)
            run.process.send_signal(signal.SIGINT)
            result = run.result()
    assert result.status == "completed", run
    assert result.downtime is not None
