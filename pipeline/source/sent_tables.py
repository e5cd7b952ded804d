"""What was last sent of memory: the hashes of pages, and pages themselves, where they are needed.

Workers write the tables; the coordinator looks, and voids, after the fence.
"""

import os
from collections.abc import Mapping
from contextlib import ExitStack

from pipeline.extents import Extent
from workers.memory import PassedFd, page_hashes, shared_memory
from workers.pages import VOID_HASH, ZERO_HASH, Hashes, Pages
from workers.sent_cache import SentCache, cache_memory


class SentTables:
    """Of one migration. `hashes`: uint64 of shape (pages,) for each block, None where neither
    tracker nor verification needs them."""

    def __init__(self, block_pages: tuple[int, ...]) -> None:
        self._block_pages = block_pages
        self.hashes: list[Hashes] | None = None
        self._cache: SentCache | None = None
        self._slots = 0

    def open_hashes(self, opened: ExitStack) -> PassedFd:
        """Make the table of hashes, which ends with `opened`; what workers are given of it."""
        fd = shared_memory("sent", 8 * sum(self._block_pages))
        opened.callback(os.close, fd)
        self.hashes = page_hashes(fd, self._block_pages)
        return PassedFd(fd)

    def open_cache(self, opened: ExitStack) -> PassedFd:
        """The same of pages: room for all of memory, of which nothing exists yet."""
        fd = cache_memory(sum(self._block_pages))
        opened.callback(os.close, fd)
        self._cache = SentCache(fd, self._block_pages)
        return PassedFd(fd)

    def note_holes(self, block: int, holes: list[Extent]) -> None:
        """They are not sent: the destination has zeros there."""
        if self.hashes is not None:
            for first, count in holes:
                self.hashes[block][first : first + count] = ZERO_HASH

    def note_bases(self, bases: Mapping[int, Hashes]) -> None:
        """The destination has them, by block number, before anything is sent."""
        for block, table in bases.items():
            assert self.hashes is not None, "disks are hashed"
            self.hashes[block][:] = table

    def use_cache(self, pages: int) -> int:
        """Have a cache of so many pages from now on, as far as memory has them: its slots, 0 where
        there is none. Only after the fence."""
        if self._cache is None:
            return 0
        slots = min(pages, 1 << (sum(self._block_pages).bit_length() - 1))
        if self._slots not in (0, slots):
            self._cache.resize(self._slots, slots)
        self._slots = slots
        return slots

    def forget(self, block: int, pages: Pages) -> None:
        """What was sent of `pages` is not what the destination has."""
        if self.hashes is not None:
            self.hashes[block][pages] = VOID_HASH
        if self._cache is not None:
            self._cache.void(self._slots, block, pages)

    def close(self) -> None:
        """Keep no memory mapped, whoever still knows us."""
        self.hashes = self._cache = None
