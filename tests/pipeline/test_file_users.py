"""Who has a file mapped or open, found by device and inode."""

import ctypes
import mmap
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pipeline.file_users import Access, FileMapping, FileUser, is_covered, mappings_of, users_of
from protocol.limits import PAGE_BYTES
from tests.pipeline.guests.helpers import python
from tests.pipeline.holding import HOLDS

PAGES = 8
SIZE = PAGES * PAGE_BYTES


@pytest.fixture(name="fd")
def _fd(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path / "memory", os.O_RDWR | os.O_CREAT)
    os.ftruncate(fd, SIZE)
    yield fd
    os.close(fd)


def own(fd: int) -> list[FileMapping]:
    return mappings_of(os.getpid(), fd)


def test_a_mapping_is_found_with_its_place(fd: int) -> None:
    """An address or length that is off; another file's mapping."""
    assert own(fd) == []
    memory = np.frombuffer(mmap.mmap(fd, SIZE), np.uint8)
    assert own(fd) == [FileMapping(memory.ctypes.data, SIZE, 0, shared=True, writable=True)]


def test_pieces_of_one_mapping_are_one(fd: int) -> None:
    """One that the kernel has split, of which only a part would be tracked."""
    memory = np.frombuffer(mmap.mmap(fd, SIZE), np.uint8)
    libc = ctypes.CDLL(None)
    start = ctypes.c_void_p(memory.ctypes.data + PAGE_BYTES)
    assert libc.madvise(start, ctypes.c_size_t(PAGE_BYTES), 16) == 0  # MADV_DONTDUMP
    assert len(own(fd)) == 1
    assert libc.mprotect(start, ctypes.c_size_t(PAGE_BYTES), mmap.PROT_READ) == 0
    assert [(m.offset, m.length, m.writable) for m in own(fd)] == [
        (0, PAGE_BYTES, True),
        (PAGE_BYTES, PAGE_BYTES, False),
        (2 * PAGE_BYTES, SIZE - 2 * PAGE_BYTES, True),
    ]
    assert is_covered(own(fd), SIZE)


def test_what_is_not_mapped_is_missed(fd: int) -> None:
    """A file of which a part is written unseen."""
    first = mmap.mmap(fd, 3 * PAGE_BYTES)
    last = mmap.mmap(fd, 4 * PAGE_BYTES, offset=4 * PAGE_BYTES)
    private = mmap.mmap(fd, SIZE, mmap.MAP_PRIVATE)
    assert len(own(fd)) == 3
    assert not is_covered(own(fd), SIZE)
    assert is_covered(own(fd), 3 * PAGE_BYTES)
    between = mmap.mmap(fd, 2 * PAGE_BYTES, offset=2 * PAGE_BYTES)
    assert is_covered(own(fd), SIZE)
    del first, last, private, between


def test_a_memory_file_without_a_name(tmp_path: Path) -> None:
    """Only what has a path that is found."""
    fd = os.memfd_create("memory")
    os.ftruncate(fd, SIZE)
    mapping = mmap.mmap(fd, SIZE)
    assert [found.length for found in own(fd)] == [SIZE]
    mapping.close()
    os.close(fd)


@pytest.mark.parametrize(
    ("how", "opened", "mapped"),
    [
        ("r", Access.READ, Access.NONE),
        ("w", Access.WRITE, Access.NONE),
        ("rm", Access.NONE, Access.READ),
        ("wm", Access.NONE, Access.WRITE),
        ("wmp", Access.NONE, Access.READ),
    ],
)
def test_who_else_has_it(fd: int, tmp_path: Path, how: str, opened: Access, mapped: Access) -> None:
    """Another process that has it and is not named, or one that is left out and is."""
    path = str(tmp_path / "memory")
    with python(HOLDS, path, how) as (process, _):
        ours = FileUser(os.getpid(), Access.WRITE, Access.NONE)
        theirs = FileUser(process.pid, opened, mapped)
        assert theirs.can_write == (Access.WRITE in (opened, mapped))
        assert users_of(fd, [os.getpid()]) == [theirs]
        assert set(users_of(fd, [process.pid])) == {ours}
        assert users_of(fd, [os.getpid(), process.pid]) == []


def test_another_file_with_the_same_content_is_not_it(fd: int, tmp_path: Path) -> None:
    """Files that are told apart by their names or sizes."""
    other = tmp_path / "other"
    other.write_bytes(bytes(SIZE))
    with python(HOLDS, str(other), "wm"):
        assert users_of(fd, [os.getpid()]) == []


def test_a_process_that_is_gone(fd: int) -> None:
    """An empty list, which would mean: it has nothing mapped."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
        with pytest.raises((FileNotFoundError, ProcessLookupError)):
            mappings_of(process.pid, fd)
