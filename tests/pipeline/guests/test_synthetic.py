"""The guest's process: it works, stops at once, moves, and never outlives who started it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from pipeline import uffd
from pipeline.guests import wire
from pipeline.guests.base import ArrivingGuest, SourceGuest
from pipeline.guests.synthetic import SyntheticArrival, SyntheticGuest
from protocol.control import BlockInfo
from protocol.devices import Section
from protocol.errors import GuestError
from protocol.limits import PAGE_BYTES
from tests.pipeline.guests.helpers import PAGES, UNIFORM, copy_memory, open_files, wait_until

MEMORY = PAGES * PAGE_BYTES
RAM = [BlockInfo("ram", PAGES)]


@pytest.fixture(name="guest")
def _guest() -> Iterator[SyntheticGuest]:
    guest = SyntheticGuest.start(MEMORY, UNIFORM)
    yield guest
    guest.close()


@pytest.fixture(name="arrival")
def _arrival() -> Iterator[SyntheticArrival]:
    arrival = SyntheticArrival.start(RAM)
    yield arrival
    arrival.close()


def test_it_moves_and_goes_on(guest: SyntheticGuest, arrival: SyntheticArrival) -> None:
    """Memory and devices that do not belong together, or a guest that stands still after."""
    source: SourceGuest = guest
    destination: ArrivingGuest = arrival
    assert source.stop() == "running"
    sections = source.save_devices()
    copy_memory(source.blocks[0].fd, destination.blocks[0].fd, MEMORY)
    destination.load_devices(sections)
    assert destination.self_check() is None
    assert destination.statistics().gap_ms is None
    assert destination.begin("s", run=True)
    wait_until(lambda: (destination.statistics().dirty_rate or 0) > 0)
    assert destination.self_check() is None
    gap_ms = destination.statistics().gap_ms
    assert gap_ms is not None
    assert 0 < gap_ms < 5000


def test_the_gap_is_the_time_it_stood_still(
    guest: SyntheticGuest, arrival: SyntheticArrival
) -> None:
    """A clock that is saved late, or read before the start: the downtime would look too short."""
    before = time.monotonic()
    guest.stop()
    stopped = time.monotonic()
    arrival.load_devices(guest.save_devices())
    wait_until(lambda: time.monotonic() > stopped + 0.1)
    starting = time.monotonic()
    arrival.begin("s", run=True)
    gap_ms = arrival.statistics().gap_ms
    assert gap_ms is not None
    assert (starting - stopped) * 1000 <= gap_ms
    assert gap_ms <= (time.monotonic() - before) * 1000 + 50


def test_a_wrong_page_is_found_at_the_destination(
    guest: SyntheticGuest, arrival: SyntheticArrival
) -> None:
    """A self-check that does not look at the memory that arrived."""
    guest.stop()
    copy_memory(guest.blocks[0].fd, arrival.blocks[0].fd, MEMORY)
    os.pwrite(arrival.blocks[0].fd, b"\1", 1000 * PAGE_BYTES + 2000)
    arrival.load_devices(guest.save_devices())
    assert "page 1000 is foreign" in str(arrival.self_check())


def test_a_stopped_guest_writes_nothing_and_a_resumed_one_does(guest: SyntheticGuest) -> None:
    """A write after the stop: it would be lost at the destination."""
    wait_until(lambda: (guest.statistics().dirty_rate or 0) > 0)
    asked = time.monotonic()
    assert guest.stop() == "running"
    assert time.monotonic() - asked < 0.1
    before = os.pread(guest.blocks[0].fd, MEMORY, 0)
    assert guest.stop() == "running"
    guest.statistics()
    wait_until(lambda: time.monotonic() > asked + 0.05)
    assert os.pread(guest.blocks[0].fd, MEMORY, 0) == before
    assert guest.statistics().dirty_rate is None
    guest.resume()
    guest.resume()
    wait_until(lambda: os.pread(guest.blocks[0].fd, MEMORY, 0) != before)


def test_resume_without_a_stop_changes_nothing(guest: SyntheticGuest) -> None:
    """A clean-up that always resumes: it must not disturb a guest that runs."""
    guest.resume()
    assert guest.stop() == "running"


def test_a_guest_that_writes_all_it_can_still_stops_at_once() -> None:
    """Work that is not cut into pieces: the stop would wait for 100 ms of backlog."""
    workload = replace(UNIFORM, dirty_rate=1 << 40, bytes_per_page=4096)
    guest = SyntheticGuest.start(MEMORY, workload)
    try:
        wait_until(lambda: (guest.statistics().dirty_rate or 0) > 0)
        asked = time.monotonic()
        guest.stop()
        assert time.monotonic() - asked < 0.5
        assert guest.self_check() is None
    finally:
        guest.close()


def test_the_rate_is_reached(guest: SyntheticGuest) -> None:
    """A tick that is too slow or too coarse: the guest would dirty less than it says."""
    rates = []
    for _ in range(5):
        guest.statistics()
        asked = time.monotonic()
        wait_until(lambda asked=asked: time.monotonic() > asked + 0.3)  # type: ignore[misc]
        rates.append(guest.statistics().dirty_rate or 0)
    assert max(rates) == pytest.approx(UNIFORM.dirty_rate, rel=0.1)
    assert max(rates) < 1.1 * UNIFORM.dirty_rate


@pytest.mark.skipif(uffd.probe() is not None, reason=str(uffd.probe()))
def test_an_armed_guest_tells_what_it_wrote(guest: SyntheticGuest) -> None:
    """A mapping registered at the wrong place or length: dirty pages would be missed."""
    [mapping] = guest.arm()
    assert guest.arm() == [mapping]
    assert (mapping.block, mapping.pid) == (0, guest.pid)
    with uffd.WrittenScan(mapping.pid, mapping.address, PAGES) as scan:
        assert len(scan.scan()) == PAGES
        before = os.pread(guest.blocks[0].fd, MEMORY, 0)
        wait_until(lambda: os.pread(guest.blocks[0].fd, MEMORY, 0) != before)
        guest.stop()
        written = set(scan.scan().tolist())
    after = os.pread(guest.blocks[0].fd, MEMORY, 0)
    pages = range(PAGES)
    changed = {page for page in pages if differs(before, after, page)}
    assert changed
    assert changed <= written
    assert max(written) < 602


def differs(before: bytes, after: bytes, page: int) -> bool:
    here = slice(page * PAGE_BYTES, (page + 1) * PAGE_BYTES)
    return before[here] != after[here]


def test_it_ends_when_its_socket_closes() -> None:
    """A guest that outlives a killed coordinator."""
    code = (
        "import os, signal, sys\n"
        "from pipeline.guests.synthetic import SyntheticGuest\n"
        "from tests.pipeline.guests.helpers import UNIFORM\n"
        f"guest = SyntheticGuest.start({MEMORY}, UNIFORM)\n"
        "print(guest.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    root = Path(__file__).parents[3]
    started = subprocess.run(
        [sys.executable, "-c", code], cwd=root, stdout=subprocess.PIPE, text=True, check=False
    )
    assert started.returncode == -signal.SIGKILL
    wait_until(lambda: not is_alive(int(started.stdout)))


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_dead_guest_is_told_as_dead(guest: SyntheticGuest) -> None:
    """A hang, or a bare connection error, where the guest was killed."""
    os.kill(guest.pid, signal.SIGKILL)
    with pytest.raises(GuestError, match=f"the guest process {guest.pid} died"):
        guest.stop()


def test_a_guest_is_told_as_dead_while_the_kernel_takes_its_memory_apart() -> None:
    """ "It runs here", of one whose memory is gone; a GiB takes a tenth of a second to free."""
    guest = SyntheticGuest.start(1 << 30, replace(UNIFORM, content="zero"))
    try:
        os.kill(guest.pid, signal.SIGKILL)
        wait_until(lambda: guest.process.is_ending)
        assert guest.is_dead()
    finally:
        guest.close()


def test_a_silent_guest_is_told_as_silent(guest: SyntheticGuest) -> None:
    """A wait without end; or a late answer that is taken for that of the next question."""
    os.kill(guest.pid, signal.SIGSTOP)
    for request, line in ((wire.Stop(), "stop"), (wire.Describe(), "describe")):
        with pytest.raises(GuestError, match=f"{guest.pid} did not answer {line} within 0.1 s"):
            guest._machine.talk.ask(request, wire.Done, 0.1)
    os.kill(guest.pid, signal.SIGCONT)
    before = open_files()
    assert guest.self_check() is None
    assert open_files() == before


def test_it_ignores_an_interrupt(guest: SyntheticGuest) -> None:
    """Ctrl-C on the command line that ends the guest before the migration is cancelled."""
    os.kill(guest.pid, signal.SIGINT)
    assert guest.stop() == "running"


def test_close_ends_it_whatever_it_does_and_leaves_nothing() -> None:
    """A descriptor or a process left behind by each migration."""
    before = open_files()
    guest = SyntheticGuest.start(MEMORY, UNIFORM)
    arrival = SyntheticArrival.start(RAM)
    os.kill(arrival.pid, signal.SIGSTOP)
    for _ in range(2):
        guest.close()
        arrival.close()
    assert not is_alive(guest.pid)
    assert not is_alive(arrival.pid)
    assert open_files() == before


def test_a_start_that_is_refused_leaves_nothing(tmp_path: Path) -> None:
    """A workload that does not fit: one line, and no process, descriptor or file."""
    before, children = open_files(), psutil.Process().children()
    with pytest.raises(GuestError, match="a working set of 600 pages"):
        SyntheticGuest.start(100 * PAGE_BYTES, UNIFORM)
    with pytest.raises(GuestError, match="Is a directory"):
        SyntheticArrival.start(RAM, tmp_path)
    with pytest.raises(GuestError, match="one block, ram; these came: ram, rom"):
        SyntheticArrival.start([*RAM, BlockInfo("rom", 1)])
    assert open_files() == before
    assert psutil.Process().children() == children
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("method", "line"),
    [("begin", "not arrived yet"), ("self_check", "not arrived yet"), ("statistics", "not arr")],
)
def test_nothing_runs_before_it_has_arrived(
    arrival: SyntheticArrival, method: str, line: str
) -> None:
    """A guest that is started on memory without its devices."""
    with pytest.raises(GuestError, match=line):
        _ = arrival.begin("s", run=True) if method == "begin" else getattr(arrival, method)()


def test_devices_are_saved_from_a_stopped_guest_alone(guest: SyntheticGuest) -> None:
    """A clock and a counter that go on after they were saved."""
    with pytest.raises(GuestError, match="the guest runs"):
        guest.save_devices()


def test_devices_are_loaded_once(guest: SyntheticGuest, arrival: SyntheticArrival) -> None:
    """A second state over a guest that runs."""
    guest.stop()
    sections = guest.save_devices()
    with pytest.raises(GuestError, match="unknown device section rom 0"):
        arrival.load_devices([*sections, Section("rom", 0, 1, b"")])
    with pytest.raises(GuestError, match="cannot be asked: Message too long"):
        arrival.load_devices([Section("clock", 0, 1, bytes(1 << 20))])
    arrival.load_devices(sections)
    with pytest.raises(GuestError, match="does not wait"):
        arrival.load_devices(sections)


def test_private_memory_does_not_grow_with_the_guest() -> None:
    """Filling or checking in one piece: 150 MiB are what a process may take."""
    guest = SyntheticGuest.start(512 << 20, replace(UNIFORM, working_set=256 << 20))
    try:
        assert guest.self_check() is None
        status = Path(f"/proc/{guest.pid}/status").read_text()
        private_kib = int(status.partition("RssAnon:")[2].split()[0])
        assert private_kib < 60 << 10
    finally:
        guest.close()
