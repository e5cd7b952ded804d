"""Pages: the right bytes at the right places, and hashes that everybody agrees on."""

import os
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.digest import page_seed
from protocol.errors import GuestError
from protocol.limits import PAGE_BYTES
from tests.protocol.samples import SESSION
from tests.workers.memories import (
    allocated_pages,
    hash_of,
    indices,
    memory_file,
    page,
    page_at,
    random_pages,
)
from workers.pages import (
    HASH_PIECE_PAGES,
    VOID_HASH,
    ZERO_HASH,
    PageBuffer,
    TableHasher,
    differing,
    entries,
    is_one_run,
    runs,
)

SEED = page_seed(SESSION)
CONTENT = random_pages(8)
ZERO_PAGE = bytes(PAGE_BYTES)


rising = st.sets(st.integers(0, 40)).map(lambda pages: indices(*sorted(pages)))


@settings(deadline=None, max_examples=50)
@given(pages=rising)
def test_runs_are_the_longest_stretches_of_neighbours(pages: np.ndarray) -> None:
    """A page left out at the end of a run, or read to the place of another."""
    found = list(runs(pages))
    assert [int(pages[i]) for start, end in found for i in range(start, end)] == pages.tolist()
    for start, end in found:
        assert int(pages[end - 1]) - int(pages[start]) == end - start - 1
    for (_, end), (start, _) in pairwise(found):
        assert int(pages[start]) > int(pages[end - 1]) + 1, "one run was cut in two"
    assert is_one_run(pages) == (len(found) <= 1)


def test_runs_of_the_highest_pages_do_not_wrap() -> None:
    """Differences of uint32 that overflow between the first and the last page of a block."""
    assert list(runs(indices(0, 2**32 - 2, 2**32 - 1))) == [(0, 1), (1, 3)]


@pytest.mark.parametrize("wanted", [(0,), (0, 1, 2, 3), (1, 2, 5), (7,), (0, 2, 4, 6), ()])
def test_scattered_and_neighbouring_pages_are_read_in_order(wanted: tuple[int, ...]) -> None:
    """A page that lands at the place of another page of its batch."""
    buffer = PageBuffer(8)
    with memory_file(8, CONTENT) as fd:
        buffer.read(fd, indices(*wanted))
    read = bytes(buffer.bytes[: len(wanted) * PAGE_BYTES])
    assert read == b"".join(page(CONTENT, index) for index in wanted)


@pytest.mark.parametrize("wanted", [(0,), (0, 1, 2, 3), (1, 2, 5), (7,), (0, 2, 4, 6), ()])
def test_pages_are_written_where_they_belong_and_nowhere_else(wanted: tuple[int, ...]) -> None:
    """A write that is shifted, or runs over the page behind it."""
    buffer = PageBuffer(8)
    buffer.bytes[:] = CONTENT
    with memory_file(8) as fd:
        buffer.write(fd, indices(*wanted))
        places = {index: place for place, index in enumerate(wanted)}
        for index in range(8):
            place = places.get(index)
            assert page_at(fd, index) == (ZERO_PAGE if place is None else page(CONTENT, place))
        assert allocated_pages(fd) == len(wanted)


@pytest.mark.parametrize("cut", [0, 1, PAGE_BYTES - 1])
def test_a_file_that_has_shrunk_is_the_guests_fault(cut: int) -> None:
    """Bytes of the batch before, sent as those of a page that does not exist any more."""
    buffer = PageBuffer(4)
    with memory_file(4, CONTENT[: 4 * PAGE_BYTES]) as fd:
        os.ftruncate(fd, 3 * PAGE_BYTES + cut)
        buffer.read(fd, indices(0, 2))
        with pytest.raises(GuestError, match="ends before page 3"):
            buffer.read(fd, indices(2, 3))


def test_a_write_that_is_refused_is_an_error() -> None:
    """A page that is not in memory and is acknowledged."""
    buffer = PageBuffer(1)
    with memory_file(1) as fd:
        read_only = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY)
        try:
            with pytest.raises(OSError, match="Bad file descriptor"):
                buffer.write(read_only, indices(0))
        finally:
            os.close(read_only)


@pytest.mark.parametrize("at", [0, 7, 8, PAGE_BYTES // 2, PAGE_BYTES - 1])
def test_one_bit_makes_a_page_not_zero(at: int) -> None:
    """A zero test that looks at a part of the page, and loses what the rest holds."""
    buffer = PageBuffer(3)
    buffer.bytes[:] = bytes(3 * PAGE_BYTES)
    buffer.bytes[PAGE_BYTES + at] = 0x80
    assert buffer.nonzero(3).tolist() == [False, True, False]
    assert buffer.nonzero(1).tolist() == [False]


def test_hashes_are_xxh3_of_the_bytes() -> None:
    """A hash of which the two ends have different ideas; a buffer hashed beyond the batch."""
    buffer = PageBuffer(4, seed=SEED)
    buffer.bytes[:] = page(CONTENT, 0) + ZERO_PAGE + page(CONTENT, 1) + page(CONTENT, 2)
    expected = [hash_of(page(CONTENT, 0)), ZERO_HASH, hash_of(page(CONTENT, 1))]
    assert buffer.hashes(3).tolist() == expected
    assert buffer.hashes(0).dtype == np.uint64
    assert hash_of(ZERO_PAGE) == ZERO_HASH != VOID_HASH


@pytest.mark.parametrize("wanted", [(), (0, 1, 2), (1,), (0, 2)])
def test_gather_takes_the_wanted_pages_alone(wanted: tuple[int, ...]) -> None:
    """A payload with a page too many: all that follow it would be another page's bytes."""
    buffer = PageBuffer(8)
    buffer.bytes[:] = CONTENT
    mask = np.isin(np.arange(3), wanted)
    gathered = buffer.gather(mask)
    assert bytes(gathered) == b"".join(page(CONTENT, index) for index in wanted)
    assert gathered.nbytes == len(gathered)


def test_gather_of_all_pages_does_not_copy() -> None:
    """A copy of every page of the most frequent batch."""
    buffer = PageBuffer(4)
    gathered = buffer.gather(np.ones(3, np.bool_))
    buffer.bytes[0] = 1
    before = gathered[0]
    buffer.bytes[0] = 2
    assert (before, gathered[0]) == (1, 2)


def test_a_buffer_over_given_memory_is_that_memory() -> None:
    """A slot that is filled and of which nobody else sees anything."""
    memory = np.zeros(2 * PAGE_BYTES, np.uint8)
    with memory_file(2, CONTENT[: 2 * PAGE_BYTES]) as fd:
        PageBuffer(2, memory).read(fd, indices(0, 1))
    assert memory.tobytes() == CONTENT[: 2 * PAGE_BYTES]


def test_a_void_entry_never_counts_as_equal() -> None:
    """A page left out because its hash is not known, and by chance the same as void."""
    hashes = np.array([5, 6, VOID_HASH, 7], np.uint64)
    table = np.array([5, 7, VOID_HASH, VOID_HASH], np.uint64)
    assert differing(hashes, table).tolist() == [False, True, True, True]


@settings(deadline=None, max_examples=50)
@given(pages=rising.filter(len))
def test_entries_are_those_of_the_pages(pages: np.ndarray) -> None:
    """The hashes of other pages, where a list looks like one run and is none."""
    table = np.arange(100, 141, dtype=np.uint64)
    assert entries(table, pages).tolist() == (pages + 100).tolist()


PAGES = HASH_PIECE_PAGES + 3
LONG = random_pages(PAGES)
HASHES = np.array([hash_of(page(LONG, index)) for index in range(PAGES)], np.uint64)


@pytest.mark.parametrize("step", [1, 2])
def test_the_hasher_finds_what_differs_and_nothing_else(step: int) -> None:
    """A change missed at the seam of two pieces, or in the last and shorter one."""
    table = HASHES.copy()
    wrong = [0, 2, HASH_PIECE_PAGES - 2, HASH_PIECE_PAGES, PAGES - 1]
    table[wrong] = [1, VOID_HASH, ZERO_HASH, 1, 1]
    with memory_file(PAGES, LONG) as fd:
        asked = np.arange(0, PAGES, step, dtype=np.uint32)
        found = TableHasher(SEED).differing(fd, asked, table)
    assert found.tolist() == [index for index in wrong if index % step == 0]


def test_the_hasher_finds_data_where_zeros_were_and_zeros_where_data_was() -> None:
    """A page that became a hole: nothing to read there, and yet it changed."""
    table = np.full(PAGES, ZERO_HASH, np.uint64)
    table[[1, PAGES - 1]] = HASHES[[1, PAGES - 1]]
    with memory_file(PAGES, page(LONG, 0)) as fd:
        found = TableHasher(SEED).differing(fd, np.arange(PAGES, dtype=np.uint32), table)
    assert found.tolist() == [0, 1, PAGES - 1]


@pytest.mark.parametrize("at", [0, HASH_PIECE_PAGES - 1, HASH_PIECE_PAGES])
def test_hashing_holes_allocates_nothing(at: int) -> None:
    """A guest of holes that fills up by being looked at; its one page missed at a seam."""
    pages = 4 * HASH_PIECE_PAGES
    table = np.full(pages, ZERO_HASH, np.uint64)
    with memory_file(pages) as fd:
        os.pwrite(fd, b"x", at * PAGE_BYTES)
        found = TableHasher(SEED).differing(fd, np.arange(pages, dtype=np.uint32), table)
        assert found.tolist() == [at]
        assert allocated_pages(fd) == 1


def test_a_descriptor_that_is_no_file_is_no_hole() -> None:
    """Memory that cannot be looked at, taken for memory that is all zero."""
    reading, writing = os.pipe()
    try:
        with pytest.raises(OSError, match="Illegal seek"):
            TableHasher(SEED).differing(reading, indices(0), np.array([ZERO_HASH], np.uint64))
    finally:
        os.close(reading)
        os.close(writing)


def test_no_hash_is_void_and_the_seed_matters(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page made to hash to what stands for "unknown", that never arrives; two pages made to
    hash alike, of which the second is never sent."""
    buffer, other = PageBuffer(1, seed=1), PageBuffer(1, seed=2)
    for one in (buffer, other):
        one.bytes[:] = page(CONTENT, 0)
    assert buffer.hashes(1) != other.hashes(1)
    monkeypatch.setattr("workers.pages.xxhash.xxh3_64_intdigest", lambda *_: VOID_HASH)
    assert buffer.hashes(1) not in (VOID_HASH, ZERO_HASH)
