"""The kernel's write tracking, as this machine's kernel does it."""

import mmap
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline import uffd
from protocol.limits import PAGE_BYTES
from tests.pipeline.guests.helpers import open_files, python

WHY_NOT = uffd.probe()
needs_uffd = pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT))

REGISTER = """
import os, mmap
import numpy as np
from pipeline.uffd import register
memory = np.frombuffer(mmap.mmap(-1, 65536), np.uint8)
fd = register(memory.ctypes.data, memory.nbytes)
print(memory.ctypes.data, flush=True)
input()
memory[8192] = 1
print("written", flush=True)
input()
"""


@dataclass
class Tracked:
    """A registered memory of this process, its bytes a row a page, and its scan."""

    pages: NDArray[np.uint8]
    scan: uffd.WrittenScan
    fd: int
    registration: int

    def written(self) -> list[int]:
        """What a scan reports."""
        found = self.scan.scan()
        assert found.dtype == np.uint32
        pages: list[int] = found.tolist()
        return pages


def track(pages: int) -> Iterator[Tracked]:
    fd = os.memfd_create("tracked")
    os.ftruncate(fd, pages * PAGE_BYTES)
    memory = np.frombuffer(mmap.mmap(fd, pages * PAGE_BYTES), np.uint8).reshape(pages, -1)
    memory[: pages // 2, 0] = 1
    registration = uffd.register(memory.ctypes.data, memory.nbytes)
    with uffd.WrittenScan(os.getpid(), memory.ctypes.data, pages) as scan:
        yield Tracked(memory, scan, fd, registration)
    os.close(registration)
    os.close(fd)


@pytest.fixture(name="tracked")
def _tracked() -> Iterator[Tracked]:
    yield from track(20_000)


@needs_uffd
def test_the_first_scan_reports_every_page(tracked: Tracked) -> None:
    """Pages without memory yet that are left out: a write before the first scan would be lost."""
    assert tracked.written() == list(range(20_000))
    assert tracked.written() == []


@needs_uffd
def test_exactly_what_was_written_is_reported_once(tracked: Tracked) -> None:
    """A page too many, too few, or one page off at the edges; marks that stay."""
    tracked.scan.scan()
    written = [0, 7, 8, 9, 4095, 9_999, 10_000, 15_000, 19_999]
    tracked.pages[written, 5] = 9
    assert tracked.written() == written
    assert tracked.written() == []
    tracked.pages[7, 5] = 8
    assert tracked.written() == [7]


@needs_uffd
def test_reading_is_no_writing(tracked: Tracked) -> None:
    """Pages that a read brought in, reported as dirty: the rounds would never get smaller."""
    tracked.scan.scan()
    assert tracked.pages.sum() == 10_000
    os.pread(tracked.fd, 1 << 20, 0)
    assert tracked.written() == []


@needs_uffd
def test_more_regions_than_the_buffer_holds(tracked: Tracked) -> None:
    """A walk that ends with the first full buffer."""
    tracked.scan.scan()
    tracked.pages[1::2, 0] = 3
    assert tracked.written() == list(range(1, 20_000, 2))
    assert tracked.written() == []


@needs_uffd
def test_another_process_is_tracked_until_it_ends() -> None:
    """A guest that died and looks as if it had written nothing: a wrong memory would be final."""
    with python(REGISTER) as (process, said):
        assert process.stdin
        assert process.stdout
        scan = uffd.WrittenScan(process.pid, int(said), 16)
        assert scan.scan().tolist() == list(range(16))
        process.stdin.write("\n")
        process.stdin.flush()
        process.stdout.readline()
        assert scan.scan().tolist() == [2]
        process.kill()
        process.wait()
        with pytest.raises(ProcessLookupError, match=f"process {process.pid} ended"):
            scan.scan()
        scan.close()
        scan.close()


@needs_uffd
def test_a_mapping_that_is_not_registered_is_refused() -> None:
    """A scan of unprotected memory that says: nothing was written."""
    memory = np.frombuffer(mmap.mmap(-1, PAGE_BYTES), np.uint8)
    with (
        uffd.WrittenScan(os.getpid(), memory.ctypes.data, 1) as scan,
        pytest.raises(PermissionError),
    ):
        scan.scan()


@needs_uffd
def test_protection_is_taken_off_piece_by_piece(
    tracked: Tracked, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A piece that is left out, at the end or between two."""
    monkeypatch.setattr(uffd, "_PIECE_BYTES", 7000 * PAGE_BYTES)
    address = tracked.pages.ctypes.data
    uffd.unprotect(tracked.fd, [(address, tracked.pages.nbytes)])
    tracked.scan.scan()
    uffd.unprotect(tracked.registration, [(address, tracked.pages.nbytes)])
    for page in range(0, 20_000, 500):
        with (
            uffd.WrittenScan(os.getpid(), address + page * PAGE_BYTES, 500) as scan,
            pytest.raises(PermissionError),
        ):
            scan.scan()


@needs_uffd
def test_a_large_memory_is_scanned_in_no_time() -> None:
    """A loop over pages in Python: 262,144 of them would take longer than the downtime."""
    for tracked in track(1 << 18):
        tracked.scan.scan()
        best_s = 1.0
        for _ in range(5):
            tracked.pages[::1000, 0] = 1
            began = time.perf_counter()
            found = tracked.scan.scan()
            best_s = min(best_s, time.perf_counter() - began)
            assert len(found) == 263
        assert best_s < 0.010


def test_a_refusal_leaves_no_descriptor() -> None:
    """A userfaultfd that stays open after each failed attempt."""
    before = open_files()
    with pytest.raises(OSError, match=r"Invalid argument|userfaultfd"):
        uffd.register(1, 1)
    with pytest.raises(OSError, match=r"No such process|Invalid argument"):
        uffd.WrittenScan(2**22 + 1, 0, 1)
    uffd.probe()
    assert open_files() == before


def test_the_probe_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    """`tracker: auto` that fails, instead of taking the other tracker with a reason."""
    monkeypatch.setattr("platform.machine", lambda: "pdp11")
    assert "no userfaultfd on pdp11" in str(uffd.probe())
