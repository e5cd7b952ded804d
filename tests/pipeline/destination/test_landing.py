"""The destination's memory: pages written, holes kept, nothing of before left."""

import os
from collections.abc import Iterator

import numpy as np
import pytest

from pipeline.destination.landing import Landing
from pipeline.guests.base import GuestBlock
from protocol import xbzrle
from protocol.errors import GuestError, RemoteProtocolError
from protocol.frames import PageKind
from protocol.limits import PAGE_BYTES
from tests.workers.memories import (
    allocated_pages,
    indices,
    memory_file,
    page,
    page_at,
    random_pages,
)
from workers.pages import PageBuffer

PAGES = 16
OLD = random_pages(PAGES, seed=1)
NEW = random_pages(PAGES, seed=2)
ZERO = bytes(PAGE_BYTES)
D, Z, X = PageKind.DATA, PageKind.ZERO, PageKind.DELTA


@pytest.fixture
def empty() -> Iterator[int]:
    """Memory that is one hole."""
    with memory_file(PAGES) as fd:
        yield fd


@pytest.fixture
def used() -> Iterator[int]:
    """Memory in which something else was before."""
    with memory_file(PAGES, OLD) as fd:
        yield fd


def landing(fd: int) -> Landing:
    """A block over this file."""
    return Landing(GuestBlock("ram", PAGES, fd))


def slot(*pages: bytes) -> PageBuffer:
    """A slot that holds these pages and, behind them, what must not be written."""
    buffer = PageBuffer(PAGES)
    buffer.bytes[:] = b"\xee" * len(buffer.bytes)
    data = b"".join(pages)
    buffer.bytes[: len(data)] = data
    return buffer


def kinds(*of: PageKind) -> "np.ndarray[tuple[int], np.dtype[np.uint8]]":
    """The kinds of a batch's pages."""
    return np.array(of, np.uint8)


def test_data_pages_land_where_they_belong(empty: int) -> None:
    """A slot's pages counted with the zero pages between them, and so shifted."""
    land = landing(empty)
    land.write(indices(1, 2, 5, 6, 9), kinds(D, Z, D, D, Z), slot(*map(_new, (1, 5, 6))))
    land.write(indices(12, 13), kinds(D, D), slot(_new(12), _new(13)))
    for index in range(PAGES):
        expected = _new(index) if index in (1, 5, 6, 12, 13) else ZERO
        assert page_at(empty, index) == expected, index
    assert land.written.tolist() == [1, 5, 6, 12, 13]
    assert allocated_pages(empty) == 5


def _new(index: int) -> bytes:
    return page(NEW, index)


def test_deltas_change_what_was_written_last(used: int) -> None:
    """A delta applied to another page, or to what the slot held; neighbours written with it."""
    was = np.frombuffer(page(OLD, 3) + page(OLD, 9), np.uint64).reshape(2, xbzrle.WORDS)
    new = was.copy()
    new[0, 0] = new[1, 511] = 42
    section = xbzrle.encode(xbzrle.differences(was, new), new, np.ones(2, np.bool_))
    land = landing(used)
    for _ in range(2):
        batch = slot(_new(5), section)
        land.write(indices(3, 4, 5, 9), kinds(X, Z, D, X), batch, len(section))
    for index in range(PAGES):
        expected = {3: new[0].tobytes(), 4: ZERO, 5: _new(5), 9: new[1].tobytes()}
        assert page_at(used, index) == expected.get(index, page(OLD, index)), index
    with pytest.raises(RemoteProtocolError, match="deltas"):
        land.write(indices(3), kinds(X), slot(section), len(section) - 8)
    assert page_at(used, 3) == new[0].tobytes()


def test_zero_pages_over_holes_allocate_nothing(empty: int) -> None:
    """A guest of holes that fills the destination's memory."""
    land = landing(empty)
    land.write(indices(*range(PAGES)), kinds(*[Z] * PAGES), slot())
    assert allocated_pages(empty) == 0
    assert not len(land.written)


def test_zero_pages_over_data_become_holes(empty: int) -> None:
    """A page that the guest cleared, and that stays as it was at the destination."""
    land = landing(empty)
    land.write(indices(3, 4, 5, 8), kinds(D, D, D, D), slot(*map(_new, (3, 4, 5, 8))))
    land.write(indices(2, 3, 4, 8, 9), kinds(*[Z] * 5), slot())
    assert [page_at(empty, index) for index in (2, 3, 4, 8, 9)] == [ZERO] * 5
    assert page_at(empty, 5) == _new(5)
    assert (land.written.tolist(), allocated_pages(empty)) == ([5], 1)


def test_a_page_can_become_data_again(empty: int) -> None:
    """A hole taken for one for ever."""
    land = landing(empty)
    for kind in (D, Z, D):
        land.write(indices(7), kinds(kind), slot(_new(7)))
    assert (page_at(empty, 7), land.written.tolist()) == (_new(7), [7])
    land.write(indices(7), kinds(Z), slot())
    assert page_at(empty, 7) == ZERO


def test_what_was_there_before_does_not_show_through_zero_pages(used: int) -> None:
    """A new file taken for granted: an old one keeps what it held."""
    land = landing(used)
    assert land.written.tolist() == list(range(PAGES))
    land.write(indices(0, 1, 2), kinds(Z, D, Z), slot(_new(1)))
    assert [page_at(used, index) for index in range(4)] == [ZERO, _new(1), ZERO, page(OLD, 3)]
    assert allocated_pages(used) == PAGES - 2


def test_what_was_there_before_does_not_show_through_holes(used: int) -> None:
    """Secrets of another guest in memory that this one never wrote."""
    land = landing(used)
    land.clear([(0, 3), (10, 6)])
    for index in range(PAGES):
        assert page_at(used, index) == (page(OLD, index) if 3 <= index < 10 else ZERO)
    assert allocated_pages(used) == 7
    assert land.written.tolist() == list(range(3, 10))
    assert os.fstat(used).st_size == PAGES * PAGE_BYTES, "a mapped file is never made shorter"


def test_a_hole_with_one_page_in_it_is_cleared(empty: int) -> None:
    """A look at the first page of an extent alone."""
    os.pwrite(empty, b"x", 9 * PAGE_BYTES)
    land = landing(empty)
    land.clear([(4, 8)])
    assert allocated_pages(empty) == 0


def test_a_page_of_zeros_that_exists_counts_as_written(empty: int) -> None:
    """A page that is left out of the comparison because it looks empty."""
    os.pwrite(empty, ZERO, 4 * PAGE_BYTES)
    assert landing(empty).written.tolist() == [4]


def test_memory_that_cannot_be_punched_is_an_error(used: int) -> None:
    """Old bytes that stay, silently."""
    read_only = os.open(f"/proc/self/fd/{used}", os.O_RDONLY)
    try:
        with pytest.raises(GuestError, match=r"guest memory takes no holes: .*Bad file descriptor"):
            landing(read_only).clear([(0, 1)])
    finally:
        os.close(read_only)
