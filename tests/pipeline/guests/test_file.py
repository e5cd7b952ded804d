"""Memory that is a file: its writer, stopped and let go on; and the file that it lands in."""

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from subprocess import Popen

import psutil
import pytest

from pipeline.guests.base import ArrivingGuest, SourceGuest
from pipeline.guests.file import FileArrival, FileGuest
from protocol.control import BlockInfo
from protocol.devices import Section
from protocol.errors import ConfigError, GuestError
from tests.pipeline.guests.helpers import open_files, python, wait_until
from tests.pipeline.holding import HOLDS

WRITE = """
import sys, threading
def write():
    with open(sys.argv[1], "r+b", buffering=0) as file:
        count = 0
        while True:
            count += 1
            file.seek(0)
            file.write(count.to_bytes(8, "little"))
for _ in range(3):
    threading.Thread(target=write, daemon=True).start()
print(1, flush=True)
input()
"""
WAIT = "print(1, flush=True); input()"
LAST_PID = Path("/proc/sys/kernel/ns_last_pid")
needs_numbers = pytest.mark.skipif(
    not os.access(LAST_PID, os.W_OK), reason=f"{LAST_PID} is not writable"
)
MEMORY = [BlockInfo("memory", 2)]


@pytest.fixture(name="path")
def _path(tmp_path: Path) -> Path:
    path = tmp_path / "memory"
    path.write_bytes(bytes(8192))
    return path


@pytest.fixture(name="writer")
def _writer(path: Path) -> Iterator[Popen[str]]:
    with python(WRITE, str(path)) as (writer, _):
        yield writer


@pytest.fixture(name="guest")
def _guest(path: Path, writer: Popen[str]) -> Iterator[FileGuest]:
    guest = FileGuest(path, writer.pid)
    yield guest
    guest.close()


def state(pid: int) -> str:
    status: str = psutil.Process(pid).status()
    return status


def assert_writing(path: Path) -> None:
    before = path.read_bytes()
    wait_until(lambda: path.read_bytes() != before)


def test_after_the_stop_nothing_is_written(guest: FileGuest, path: Path) -> None:
    """A stop that does not wait for every thread: their last writes would be lost."""
    source: SourceGuest = guest
    for _ in range(20):
        assert_writing(path)
        assert source.stop() == "running"
        before = path.read_bytes()
        asked = time.monotonic()
        wait_until(lambda asked=asked: time.monotonic() > asked + 0.005)  # type: ignore[misc]
        assert path.read_bytes() == before
        assert source.stop() == "running"
        source.resume()
    source.resume()
    assert_writing(path)


def test_a_writer_that_was_stopped_before_stays_so(guest: FileGuest, writer: Popen[str]) -> None:
    """A resume that lets go on what somebody else has stopped."""
    os.kill(writer.pid, signal.SIGSTOP)
    wait_until(lambda: state(writer.pid) == psutil.STATUS_STOPPED)
    assert guest.stop() == "paused"
    guest.resume()
    assert state(writer.pid) == psutil.STATUS_STOPPED


def test_close_leaves_a_stopped_writer_stopped(path: Path, writer: Popen[str]) -> None:
    """After a completed migration the guest must not run on both sides."""
    guest = FileGuest(path, writer.pid)
    guest.stop()
    guest.close()
    guest.close()
    assert state(writer.pid) == psutil.STATUS_STOPPED


def test_a_writer_that_ended_is_told_as_gone(guest: FileGuest, writer: Popen[str]) -> None:
    """A zombie that is waited for, or taken for a stopped guest."""
    writer.kill()
    with pytest.raises(GuestError, match=f"the writer {writer.pid} is gone"):
        guest.stop()
    writer.wait()
    with pytest.raises(GuestError, match=f"the writer {writer.pid} is gone"):
        guest.stop()


@contextlib.contextmanager
def process_number(pid: int) -> Iterator[None]:
    """A stopped process that has this number."""
    for _ in range(50):
        LAST_PID.write_text(str(pid - 1))
        with python(WAIT) as (stranger, _):
            if stranger.pid == pid:
                os.kill(pid, signal.SIGSTOP)
                wait_until(lambda: state(pid) == psutil.STATUS_STOPPED)
                yield
                return
    pytest.skip("others took the process number each time")


@needs_numbers
def test_a_stranger_with_the_writers_number_is_not_taken_for_it(path: Path) -> None:
    """A stop that looks at the number: the stranger's state would be told as the writer's."""
    with python(WAIT) as (writer, _):
        guest = FileGuest(path, writer.pid)
    with process_number(writer.pid), pytest.raises(GuestError, match="is gone"):
        guest.stop()
    guest.close()


@needs_numbers
def test_a_stranger_with_the_writers_number_gets_no_signal(path: Path) -> None:
    """A resume by number: it would let go on what somebody else has stopped."""
    with python(WAIT) as (writer, _):
        guest = FileGuest(path, writer.pid)
        guest.stop()
    with process_number(writer.pid):
        with pytest.raises(GuestError, match="is gone"):
            guest.resume()
        assert state(writer.pid) == psutil.STATUS_STOPPED
    guest.close()


def test_a_pid_without_a_process_is_refused(path: Path) -> None:
    """A migration that would only notice at the switch-over; and the file left open."""
    before = open_files()
    with python("print(1)") as (ended, _):
        pass
    with pytest.raises(GuestError, match=f"no process {ended.pid} writes the memory"):
        FileGuest(path, ended.pid)
    assert open_files() == before


def test_a_file_without_a_writer_has_nothing_to_stop(path: Path) -> None:
    """A quiet file that asks for a process."""
    guest = FileGuest(path, None)
    assert [(block.name, block.pages) for block in guest.blocks] == [("memory", 2)]
    assert guest.stop() == "paused"
    guest.resume()
    assert guest.arm() == []
    assert "does not register itself" in guest.why_not_armed()
    assert guest.save_devices() == []
    assert guest.statistics().dirty_rate is None
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.pwrite(guest.blocks[0].fd, b"x", 0)
    guest.close()
    guest.close()


@pytest.mark.parametrize(
    ("size", "line"),
    [(0, "has 0 bytes; memory is a multiple of 4096, and not empty"), (4097, "has 4097 bytes")],
)
def test_a_file_of_a_wrong_size_is_refused(path: Path, size: int, line: str) -> None:
    """A last page that is cut short, or a guest without memory."""
    os.truncate(path, size)
    with pytest.raises(ConfigError, match=line):
        FileGuest(path, None)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    """A folder that is read as memory, or a pipe that is waited for."""
    os.mkfifo(tmp_path / "pipe")
    for path, line in (
        (tmp_path, "is not a file that holds memory"),
        (tmp_path / "pipe", "is not a file that holds memory"),
        (tmp_path / "x", "cannot be read: No such file"),
    ):
        with pytest.raises(ConfigError, match=line):
            FileGuest(path, None)


def test_memory_without_a_name_arrives() -> None:
    """A descriptor that leaks, or memory of the wrong size."""
    before = open_files()
    arrival: ArrivingGuest = FileArrival(None, MEMORY)
    assert os.fstat(arrival.blocks[0].fd).st_size == 8192
    assert not arrival.begin("s", run=True)
    assert arrival.self_check() is None
    arrival.load_devices([])
    with pytest.raises(GuestError, match="takes no device state, clock came"):
        arrival.load_devices([Section("clock", 0, 1, b"")])
    arrival.close()
    arrival.close()
    assert open_files() == before


def test_a_file_that_was_cut_has_no_guest(tmp_path: Path) -> None:
    """Memory that has arrived, and that somebody has thrown away before the guest is."""
    path = tmp_path / "memory"
    path.touch()
    arrival = FileArrival(path, MEMORY)
    arrival.load_devices([])
    os.truncate(path, 0)
    with pytest.raises(GuestError, match="has 0 bytes now, and had 8192"):
        arrival.load_devices([])
    arrival.close()


def test_several_blocks_do_not_fit_in_a_file(tmp_path: Path) -> None:
    """Blocks that land on top of each other."""
    with pytest.raises(GuestError, match="one block of memory, 2 came"):
        FileArrival(tmp_path / "landing", [*MEMORY, BlockInfo("video", 1)])
    assert not list(tmp_path.iterdir())


def test_a_file_is_moved_by_one_migration_at_a_time(path: Path) -> None:
    """A guest that goes to two places; memory that lands on itself."""
    path.write_bytes(b"x" * 8192)
    guest = FileGuest(path, None)
    for again in (lambda: FileGuest(path, None), lambda: FileArrival(path, MEMORY)):
        with pytest.raises(ConfigError, match="is locked: another migration moves it"):
            again()
    guest.close()
    FileGuest(path, None).close()
    assert path.read_bytes() == b"x" * 8192


def test_a_writer_that_somebody_let_go_on_is_noticed(guest: FileGuest, writer: Popen[str]) -> None:
    """Pages written after the last look, and a guest that runs twice."""
    guest.stop()
    guest.check_stopped()
    os.kill(writer.pid, signal.SIGCONT)
    with pytest.raises(GuestError, match=f"writer {writer.pid} went on while it was"):
        guest.check_stopped()


def test_a_second_process_that_could_write_is_refused(path: Path, writer: Popen[str]) -> None:
    """Memory that changes while the writer stands still, and is said to be proved."""
    with (
        python(HOLDS, str(path), "wm") as (other, _),
        pytest.raises(GuestError, match=f"process {other.pid} has .* mapped for writing, too"),
    ):
        FileGuest(path, writer.pid)
