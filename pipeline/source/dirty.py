"""Which pages are still to be sent. Pure: marks in, lists of pages out.

A mark is cleared when its page is handed out, which is before the page is read; a
page that is written after that is marked again by the next scan.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from pipeline.extents import Extent
from workers.pages import Pages

Planned = tuple[int, Pages]
"""A batch to be: block number and rising page indices, uint32 of shape (n,)."""


class DirtyMap:
    """One bit a page (a byte, in numpy) for each block."""

    def __init__(self, block_pages: tuple[int, ...], disks_from: int | None = None) -> None:
        """Blocks from number `disks_from` on are handed out before all others."""
        memory = len(block_pages) if disks_from is None else disks_from
        self._order = [*range(memory, len(block_pages)), *range(memory)]
        self._marks: list[NDArray[np.bool_]] = [np.zeros(pages, np.bool_) for pages in block_pages]

    def mark(self, block: int, pages: Pages) -> None:
        """Add `pages`."""
        self._marks[block][pages] = True

    def mark_extents(self, block: int, extents: list[Extent]) -> None:
        """Add whole ranges."""
        for first, count in extents:
            self._marks[block][first : first + count] = True

    def add(self, other: "DirtyMap") -> None:
        """Add what is marked in `other`, a map of the same blocks."""
        for marks, more in zip(self._marks, other._marks, strict=True):
            marks |= more

    def marked(self, block: int, pages: Pages) -> NDArray[np.bool_]:
        """Which of `pages` are marked."""
        return self._marks[block][pages]

    @property
    def pages(self) -> int:
        """How many pages are marked."""
        return self.pages_from(0)

    def pages_from(self, block: int) -> int:
        """How many are in that block, and those behind it."""
        return sum(int(np.count_nonzero(marks)) for marks in self._marks[block:])

    def take(self, batch_pages: int) -> Iterator[Planned]:
        """Hand out all marked pages, cut into batches, and clear their marks at once."""
        found = [np.flatnonzero(marks).astype(np.uint32) for marks in self._marks]
        for marks in self._marks:
            marks[:] = False
        return (
            (block, found[block][start : start + batch_pages])
            for block in self._order
            for start in range(0, len(found[block]), batch_pages)
        )
