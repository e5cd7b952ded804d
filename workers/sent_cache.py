"""What was last sent of pages, so that next time only what differs of them has to travel.

Direct-mapped: page p, counted over all blocks, has the slot p & (slots - 1). One table for all
compress workers: entries are read and written under a lock, and compared after it. An entry is void
while it is written: whoever dies then leaves no half of a page. Who does not get the lock, because
its holder hangs, takes nothing from the cache, and leaves nothing there that would be old.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from protocol import xbzrle
from protocol.frames import PageKind
from protocol.limits import PAGE_BYTES
from workers.memory import mapped_bytes, punch_hole, record_lock, shared_memory

LIFETIME = 2
"""An entry gives way to another page once dirty-sync-count has gone on by so many (QEMU's
CACHED_PAGE_LIFETIME)."""

ENTRY_BYTES = PAGE_BYTES + 8 + 8
_VOID = 0

Mask = NDArray[np.bool_]
Numbers = NDArray[np.int64]


class Deltas(NamedTuple):
    """The section of a batch's deltas; pages that were not in the cache; deltas that would be no
    smaller than their page."""

    section: bytes = b""
    missed: int = 0
    overflow: int = 0


def cache_memory(pages: int) -> int:
    """The descriptor of a cache for `pages` at most, of which nothing exists yet."""
    return shared_memory("cache", pages * ENTRY_BYTES)


class SentCache:
    """The entries in memory file `fd`, made for `pages` of them at most; `slots`, a power of two,
    says at each call how many are in use."""

    def __init__(self, fd: int, pages: int) -> None:
        memory = mapped_bytes(fd)
        ends = np.cumsum([pages * PAGE_BYTES, pages * 8])
        content, tags, ages = np.split(memory[: pages * ENTRY_BYTES], ends)
        self._words = content.view(np.uint64).reshape(pages, xbzrle.WORDS)
        self._tags = tags.view(np.int64)
        """Page + 1 of each entry, or _VOID."""
        self._ages = ages.view(np.int64)
        self._fd = fd

    def encode(
        self,
        slots: int,
        pages: Numbers,
        words: xbzrle.Words,
        kinds: NDArray[np.uint8],
        wanted: Mask,
    ) -> Deltas:
        """The deltas of those `wanted` data pages that are in the cache.

        In `kinds` they become deltas; what has not changed is not `wanted` any more.
        """
        data = wanted & (kinds == PageKind.DATA)
        at = pages & (slots - 1)
        with record_lock(self._fd) as locked:
            rows = np.flatnonzero(data & (self._tags[at] == pages + 1) & locked)
            old = self._words[at[rows]]
        new = words[rows]
        runs = xbzrle.differences(old, new)
        sizes = xbzrle.sizes(runs, len(rows))
        chosen = (sizes > 0) & (sizes < PAGE_BYTES)
        wanted[rows[sizes == 0]] = False
        kinds[rows[chosen]] = PageKind.DELTA
        return Deltas(
            xbzrle.encode(runs, new, chosen),
            int(np.count_nonzero(data)) - len(rows),
            int(np.count_nonzero(sizes >= PAGE_BYTES)),
        )

    def keep(
        self, slots: int, count: int, pages: Numbers, words: xbzrle.Words, nonzero: Mask
    ) -> None:
        """Note what is sent of `pages`, at dirty-sync-count `count`: entries are refreshed, or take
        the place of one that is old enough; of pages that are zero there are none."""
        with record_lock(self._fd) as locked:
            if locked:
                self._keep(pages & (slots - 1), count, pages, words, nonzero)
            else:
                self.void(slots, pages)

    def _keep(
        self, at: Numbers, count: int, pages: Numbers, words: xbzrle.Words, nonzero: Mask
    ) -> None:
        tags = self._tags[at]
        mine = tags == pages + 1
        free = mine | (tags == _VOID) | (self._ages[at] + LIFETIME <= count)
        self._tags[at[mine | (free & nonzero)]] = _VOID
        rows = _first_of_each(at, np.flatnonzero(free & nonzero))
        taken = at[rows]
        self._words[taken] = words[rows]
        self._ages[taken] = count
        self._tags[taken] = pages[rows] + 1

    def void(self, slots: int, pages: Numbers) -> None:
        """Forget what was sent of `pages`: nobody knows which of two copies arrives."""
        at = pages & (slots - 1)
        self._tags[at[self._tags[at] == pages + 1]] = _VOID

    def resize(self, before: int, slots: int) -> None:
        """From `before` to so many slots: what is not in its place any more is forgotten."""
        tags = self._tags[: max(before, slots)]
        moved = ((tags - 1) & (slots - 1)) != np.arange(len(tags))
        tags[moved] = _VOID
        if slots < before:
            self._tags[slots:before] = _VOID
            punch_hole(self._fd, slots * PAGE_BYTES, (before - slots) * PAGE_BYTES)


def _first_of_each(at: Numbers, rows: Numbers) -> Numbers:
    """Of `rows` those whose slot no row before them has: an entry that is new does not give way."""
    return rows[np.unique(at[rows], return_index=True)[1]]
