"""Memory and descriptors that are shared: private to us, of the right size, right views."""

import mmap
import os

import numpy as np
import pytest

from protocol.limits import PAGE_BYTES
from workers.memory import (
    mapped_bytes,
    maybe_page_hashes,
    page_hashes,
    shared_memory,
    split_blocks,
)


@pytest.mark.parametrize(("asked", "given"), [(0, mmap.PAGESIZE), (8, mmap.PAGESIZE), (9000, 9000)])
def test_shared_memory_is_private_zeroed_and_not_inherited(asked: int, given: int) -> None:
    """A hash table that any user may open by /proc/PID/fd; one of 0 bytes cannot be mapped."""
    fd = shared_memory("test", asked)
    try:
        assert (os.fstat(fd).st_size, os.fstat(fd).st_mode & 0o777) == (given, 0o600)
        assert not os.get_inheritable(fd)
        assert not mapped_bytes(fd).any()
    finally:
        os.close(fd)


def test_two_mappings_of_a_file_are_the_same_memory() -> None:
    """A private mapping: what a worker notes, the coordinator never sees."""
    fd = shared_memory("test", PAGE_BYTES)
    first, second = mapped_bytes(fd), mapped_bytes(fd)
    os.close(fd)
    first[17] = 3
    assert second[17] == 3


def test_each_block_gets_its_own_part_of_the_table() -> None:
    """Two blocks whose hashes lie on each other."""
    flat = np.arange(10, dtype=np.uint64)
    assert [part.tolist() for part in split_blocks(flat, (3, 1, 6))] == [
        [0, 1, 2],
        [3],
        [4, 5, 6, 7, 8, 9],
    ]


def test_the_hash_table_has_an_entry_for_each_page_of_each_block() -> None:
    """A table that is a page long because its file is, or that is a copy."""
    fd = shared_memory("test", 8 * 7)
    tables, again = page_hashes(fd, (2, 5)), page_hashes(fd, (2, 5))
    os.close(fd)
    assert [table.shape for table in tables] == [(2,), (5,)]
    tables[1][4] = 2**64 - 1
    assert again[1].tolist() == [0, 0, 0, 0, 2**64 - 1]
    assert maybe_page_hashes(None, (2, 5)) is None
