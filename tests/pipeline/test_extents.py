"""Extents: what exists of a file, what lies between, and the form in which it travels."""

import os
import struct
from itertools import chain

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.extents import complement, data_extents, decode_extents, encode_extents
from protocol.errors import RemoteProtocolError
from protocol.limits import PAGE_BYTES
from tests.workers.memories import allocated_pages, memory_file

PAGES = 12


@pytest.mark.parametrize(
    ("existing", "found"),
    [
        ([], []),
        (range(PAGES), [(0, PAGES)]),
        ([0], [(0, 1)]),
        ([PAGES - 1], [(PAGES - 1, 1)]),
        ([3, 4, 5], [(3, 3)]),
        (range(0, PAGES, 2), [(first, 1) for first in range(0, PAGES, 2)]),
        ([0, 1, 10, 11], [(0, 2), (10, 2)]),
    ],
)
def test_what_exists_is_found_and_nothing_is_made(
    existing: list[int], found: list[tuple[int, int]]
) -> None:
    """A page left out of round 1; holes that are filled by being looked for."""
    with memory_file(PAGES) as fd:
        for index in existing:
            os.pwrite(fd, b"x", index * PAGE_BYTES + 100)
        assert data_extents(fd, PAGES) == found
        assert allocated_pages(fd) == len(existing)


def test_a_file_that_ends_within_a_page_ends_with_that_page() -> None:
    """The last bytes of a file whose size is no whole number of pages."""
    with memory_file(PAGES) as fd:
        os.ftruncate(fd, 3 * PAGE_BYTES)
        os.pwrite(fd, b"x", 3 * PAGE_BYTES)
        assert data_extents(fd, PAGES) == [(3, 1)]


def test_a_page_of_zeros_exists() -> None:
    """A page of which the tracker and the extents have different ideas."""
    with memory_file(PAGES) as fd:
        os.pwrite(fd, bytes(PAGE_BYTES), 5 * PAGE_BYTES)
        assert data_extents(fd, PAGES) == [(5, 1)]


@pytest.mark.parametrize("asked", [1, 5, 8, 20])
def test_only_the_pages_asked_for_are_told(asked: int) -> None:
    """Pages of a longer file that belong to nobody, or are beyond the end of a shorter one."""
    with memory_file(PAGES, b"x" * 8 * PAGE_BYTES) as fd:
        assert data_extents(fd, asked) == [(0, min(asked, 8))]


def test_a_file_that_cannot_be_asked_is_no_hole() -> None:
    """A guest whose memory cannot be looked at, taken for one that is all zero."""
    reading, writing = os.pipe()
    try:
        with pytest.raises(OSError, match="Illegal seek"):
            data_extents(reading, PAGES)
    finally:
        os.close(reading)
        os.close(writing)


gaps = st.lists(st.tuples(st.integers(1, 5), st.integers(1, 5)), max_size=6)


def _placed(gaps: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Rising extents with these gaps in front of them."""
    extents, end = [], 0
    for gap, count in gaps:
        extents.append((end + gap, count))
        end += gap + count
    return extents


def _pages(extents: list[tuple[int, int]]) -> list[int]:
    return list(chain.from_iterable(range(first, first + count) for first, count in extents))


@settings(deadline=None)
@given(gaps=gaps, tail=st.integers(0, 3), at_start=st.booleans())
def test_extents_and_their_complement_are_all_pages_once(
    gaps: list[tuple[int, int]], tail: int, at_start: bool
) -> None:
    """A hole that is not cleared, or data that is."""
    extents = _placed(gaps)
    if at_start and extents:
        extents[0] = (0, extents[0][0] + extents[0][1])
    total = sum(extents[-1]) + tail if extents else tail
    holes = complement(extents, total)
    assert sorted(_pages(extents) + _pages(holes)) == list(range(total))
    assert all(count > 0 for _, count in holes)


@settings(deadline=None)
@given(gaps=gaps)
def test_extents_survive_the_way(gaps: list[tuple[int, int]]) -> None:
    """First page and count swapped, or in another byte order."""
    extents = _placed(gaps)
    assert decode_extents(encode_extents(extents), 1000) == extents


def test_the_form_is_pairs_of_little_endian_words() -> None:
    """An end that speaks another format than docs/wire-format.md."""
    assert encode_extents([(1, 2), (2**32 - 2, 1)]) == struct.pack("<4Q", 1, 2, 2**32 - 2, 1)
    assert decode_extents(b"", 1) == []


@pytest.mark.parametrize(
    "extent",
    [(99, 2), (100, 1), (0, 101), (2**64 - 1, 2), (2**64 - 1, 1), (2**63, 2**63), (5, 2**64 - 3)],
)
@pytest.mark.parametrize("others", [[], [(0, 1)], [(3, 4), (9, 91)]])
def test_an_extent_outside_the_block_is_refused(
    extent: tuple[int, int], others: list[tuple[int, int]]
) -> None:
    """A hole punched where another block begins, or a number that wraps around."""
    with pytest.raises(RemoteProtocolError, match="outside its block of 100 pages"):
        decode_extents(encode_extents([*others, extent]), 100)
    with pytest.raises(RemoteProtocolError, match="outside its block of 100 pages"):
        decode_extents(encode_extents([extent, *others]), 100)


def test_the_whole_block_may_be_a_hole() -> None:
    """A limit that is one too low: an empty guest could not move."""
    assert decode_extents(encode_extents([(0, 100)]), 100) == [(0, 100)]
