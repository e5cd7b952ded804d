"""Dirty marks: each page handed out once, none lost, each cleared before it is read."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.source.dirty import DirtyMap
from tests.workers.memories import indices

BLOCKS = (20, 7)

marks = st.sets(st.sampled_from([(0, page) for page in range(20)] + [(1, p) for p in range(7)]))


def map_of(pages: set[tuple[int, int]]) -> DirtyMap:
    """A map in which these (block, page) are marked."""
    made = DirtyMap(BLOCKS)
    for block, page in pages:
        made.mark(block, indices(page))
    return made


@settings(deadline=None)
@given(marked=marks, batch_pages=st.integers(1, 9))
def test_every_marked_page_is_handed_out_once(
    marked: set[tuple[int, int]], batch_pages: int
) -> None:
    """A page lost at the seam of two batches, twice in a round, or in the wrong block."""
    dirty = map_of(marked)
    assert dirty.pages == len(marked)
    batches = list(dirty.take(batch_pages))
    assert [(block, page) for block, pages in batches for page in pages] == sorted(marked)
    for _, pages in batches:
        assert 0 < len(pages) <= batch_pages
        assert pages.dtype == np.uint32
    assert sum(len(pages) < batch_pages for _, pages in batches) <= len(BLOCKS)


def test_marks_are_cleared_when_they_are_taken_and_not_when_batches_are_cut() -> None:
    """A page written after the scan, whose new mark is cleared by a batch that is cut late."""
    dirty = map_of({(0, 3), (0, 4)})
    batches = dirty.take(1)
    assert dirty.pages == 0
    dirty.mark(0, indices(4, 5))
    assert [int(pages[0]) for _, pages in batches] == [3, 4]
    assert [pages.tolist() for _, pages in dirty.take(8)] == [[4, 5]]


def test_a_page_marked_twice_counts_once() -> None:
    """A round that never gets smaller, or sends a page twice."""
    dirty = DirtyMap(BLOCKS)
    dirty.mark(0, indices(1, 1, 2))
    dirty.mark_extents(0, [(2, 3), (4, 1)])
    assert dirty.pages == 4
    assert [pages.tolist() for _, pages in dirty.take(64)] == [[1, 2, 3, 4]]


def test_extents_are_marked_from_their_first_to_their_last_page() -> None:
    """The first or the last page of what exists, left out of round 1."""
    dirty = DirtyMap(BLOCKS)
    dirty.mark_extents(1, [(0, 2), (6, 1)])
    assert [(block, pages.tolist()) for block, pages in dirty.take(64)] == [(1, [0, 1, 6])]


@settings(deadline=None)
@given(mine=marks, others=marks)
def test_adding_a_map_takes_over_its_marks_and_leaves_them(
    mine: set[tuple[int, int]], others: set[tuple[int, int]]
) -> None:
    """What the last pass found replaces what the tracker found, instead of joining it."""
    dirty, other = map_of(mine), map_of(others)
    dirty.add(other)
    assert dirty.pages == len(mine | others)
    assert other.pages == len(others)


def test_which_pages_are_marked() -> None:
    """A page taken for sent although it waits, or the other way round."""
    dirty = map_of({(0, 3), (1, 5)})
    assert dirty.marked(0, indices(2, 3, 5)).tolist() == [False, True, False]
    assert dirty.marked(1, indices(5, 6)).tolist() == [True, False]


def test_disks_come_before_memory() -> None:
    """Memory that is sent first, and is dirty again when the disk has followed."""
    dirty = DirtyMap((3, 4, 5, 6), disks_from=2)
    for block in range(4):
        dirty.mark_extents(block, [(0, 3)])
    assert dirty.pages_from(2) == 6
    assert [block for block, _ in dirty.take(2)] == [2, 2, 3, 3, 0, 0, 1, 1]
