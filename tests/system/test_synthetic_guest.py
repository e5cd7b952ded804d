"""A guest at work moves: it is right, it goes on there, and it stops here."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from pipeline import uffd
from pipeline.config.model import Config
from pipeline.guests.synthetic import SyntheticGuest
from pipeline.result import Result
from pipeline.source.departures import make_guest
from protocol.limits import PAGE_BYTES
from tests.pipeline.guests.helpers import wait_until
from tests.system.migrations import (
    FEW_WORKERS,
    MIB,
    Command,
    both_ends,
    listen,
    migrate,
    nobody,
    settings,
)

WORKING_PAGES = 512
DIRTY_RATE = 4 * MIB
NEEDS_UFFD = pytest.mark.skipif(uffd.probe() is not None, reason=str(uffd.probe()))
WAYS = [
    pytest.param("uffd", "full", marks=NEEDS_UFFD),
    pytest.param("uffd", "frames", marks=NEEDS_UFFD),
    ("hash", "full"),
    ("hash", "off"),
]


@contextmanager
def synthetic_guest() -> Iterator[SyntheticGuest]:
    """The guest of `settings()`, at work."""
    guest = make_guest(Config.model_validate(settings()))
    assert isinstance(guest, SyntheticGuest)
    try:
        yield guest
    finally:
        guest.close()


def writes(fd: int) -> int:
    """How often the guest whose memory `fd` is has written: the sum of its table."""
    return int(np.frombuffer(os.pread(fd, WORKING_PAGES * 8, 0), np.uint64).sum())


def assert_moved(here: Result, there: Result) -> None:
    """Completed, clean, and its downtime is what the guest itself saw."""
    assert here.error_desc is None
    assert (here.status, there.status) == ("completed", "completed")
    assert there.self_check == "clean"
    assert here.guest_alive == there.guest_alive == "destination"
    assert there.guest_gap is not None
    assert here.downtime is not None
    assert abs(here.downtime - there.guest_gap) <= max(0.2 * there.guest_gap, 30)


@pytest.mark.parametrize(("tracker", "verify"), WAYS)
def test_every_way_to_track_and_to_verify(folder: Path, tracker: str, verify: str) -> None:
    """A tracker that misses pages, which only the verification would hide."""
    here, there = both_ends(settings(tracker=tracker, verify=verify), folder)
    assert_moved(here, there)
    assert (here.tracker, here.tracker_reason) == (tracker, "asked for")
    assert here.verified == {"full": True, "frames": "frames", "off": None}[verify]
    assert here.guest_dirty_rate is not None
    assert 0.3 * DIRTY_RATE < here.guest_dirty_rate < 1.5 * DIRTY_RATE


def test_a_pattern_with_a_position(folder: Path) -> None:
    """A place in the working set that is lost on the way: pages skipped, or written twice."""
    guest = settings()["guest"]
    guest = {**guest, "workload": {**guest["workload"], "pattern": "sequential"}}
    assert_moved(*both_ends(settings(guest), folder))


@pytest.mark.parametrize("tracker", [pytest.param("uffd", marks=NEEDS_UFFD), "hash"])
def test_what_is_written_after_the_last_scan(folder: Path, tracker: str) -> None:
    """Pages lost between the decision to switch over and the stop; verify: off finds nothing."""
    with synthetic_guest() as guest:
        stop, memory = guest.stop, guest.blocks[0].fd

        def stop_after_more_writes() -> str:
            count = writes(memory)
            wait_until(lambda: writes(memory) > count + 100)
            return stop()

        guest.stop = stop_after_more_writes  # type: ignore[method-assign]
        here, there = both_ends(settings(tracker=tracker, verify="off"), folder, guest=guest)
    assert here.status == "completed"
    assert there.self_check == "clean"


@pytest.mark.parametrize("batch_pages", [1, 1024])
def test_the_smallest_and_the_largest_batch(folder: Path, batch_pages: int) -> None:
    """A window or a slot that is made for the default alone."""
    guest = {"kind": "synthetic", "memory": "4MiB", "workload": {"working-set": "1MiB"}}
    assert_moved(*both_ends(settings(guest, batch_pages=batch_pages), folder))


def test_the_smallest_guest(folder: Path) -> None:
    """Fewer pages than workers, than a batch, than a scan."""
    guest = {"kind": "synthetic", "memory": 8 * PAGE_BYTES}
    assert_moved(*both_ends(settings(guest), folder))


def test_more_workers_than_work(folder: Path) -> None:
    """Slots or grants that run out where workers outnumber batches."""
    threads = {"compress-threads": 7, "decompress-threads": 5}
    assert_moved(*both_ends(settings(parameters=threads), folder))


def test_as_many_workers_as_processors(folder: Path) -> None:
    """A number of workers that one end takes for a word."""
    threads = {"compress-threads": "auto", "decompress-threads": "auto"}
    assert_moved(*both_ends(settings(parameters=threads, codec="auto"), folder))


@pytest.mark.more
def test_auto_packs_on_a_link_that_limits(folder: Path) -> None:
    """Raw pages on a thin link."""
    guest = {"kind": "synthetic", "memory": "128MiB", "workload": {"pattern": "idle"}}
    thin = settings(guest, codec="auto", parameters={**FEW_WORKERS, "max-bandwidth": "16MiB"})
    here, there = both_ends(thin, folder)
    assert_moved(here, there)
    assert here.compression is not None
    assert here.compression.compression_rate > 2


def test_a_slow_link_takes_more_than_one_round(folder: Path) -> None:
    """A switch-over on a guess, while more is dirty than fits into the downtime."""
    parameters = {"max-bandwidth": "8MiB", "downtime-limit": 100}
    config = settings(codec="none", verify="frames", parameters=parameters)
    here, there = both_ends(config, folder)
    assert_moved(here, there)
    assert len(here.rounds) >= 3
    assert sum(one.wire_bytes for one in here.rounds) == here.ram.transferred  # type: ignore[union-attr]
    assert all(one.pages <= 1.1 * WORKING_PAGES for one in here.rounds[1:])
    first = here.rounds[0]
    assert first.stages is not None
    assert first.stages.compress is not None
    assert (first.stages.compress.blocked or 0) > 0.5
    assert first.bottleneck == "send"
    assert (first.wire_rate or 0) == pytest.approx(8 * MIB, rel=0.3)


def test_guests_that_live_on_tell_of_their_migration(folder: Path) -> None:
    """A guest that has left, and whose terminal says that it runs."""
    config = settings()
    ends = {"guest": folder / "g", "destination": folder / "i"}
    with (
        Command(folder, "guest", "--socket", str(ends["guest"]), config=config) as left,
        Command(
            folder, "guest", "--socket", str(ends["destination"]), "--incoming", config=config
        ) as arrived,
    ):
        for one in (left, arrived):
            one.wait_for("the guest is")
        named = [f"{end}.socket={path}" for end, path in ends.items()]
        options = [word for name in named for word in ("--set", name)]
        with Command(folder, "run", "--quiet", *options, config=config) as moved:
            session = moved.result().session
            assert moved.code() == 0, moved.words
        for one, role, state in ((left, "source", "gone"), (arrived, "destination", "running")):
            one.wait_for(f"the guest is {state}")
            told = one.words.splitlines()[1:]
            assert len(told) == 2, one.words
            assert all(f"role={role}" in line and f"session={session}" in line for line in told)
            one.process.terminate()
            assert one.code() == 0


def test_it_really_moved(folder: Path) -> None:
    """Two ends that share the memory: every check passes and nothing was ever sent."""
    arrived = folder / "arrived"
    with (
        listen(folder, "--stay", "60", config=settings(to=arrived)) as there,
        synthetic_guest() as guest,
    ):
        here = migrate(Config.model_validate(settings()), there.uri, nobody, guest=guest)
        assert here.status == "completed"
        left, size_bytes = guest.blocks[0].fd, guest.blocks[0].pages * PAGE_BYTES
        count = writes(left)
        with arrived.open("rb") as file:
            wait_until(lambda: writes(file.fileno()) > count)
            status, other = os.fstat(file.fileno()), os.fstat(left)
        assert (status.st_dev, status.st_ino) != (other.st_dev, other.st_ino)
        assert writes(left) == count, "the guest at the source went on"
        os.pwrite(left, b"\xaa" * size_bytes, 0)
        there.process.terminate()
        assert there.code() == 0, there.words
        assert there.result().self_check == "clean"
    arrived.unlink()
