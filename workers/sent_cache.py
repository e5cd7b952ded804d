"""What was last sent of pages, so that next time only what differs of them has to travel.

Direct-mapped: page p, counted over all blocks, has the slot p & (slots - 1). One table for all
compress workers: entries are read and written under a lock of their range of slots, and compared
outside it. An entry is void while it is written: whoever dies then leaves no half of a page. Who
does not get the lock, because its holder hangs, takes nothing from the cache, and leaves nothing
there that would be old.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from protocol import xbzrle
from protocol.limits import PAGE_BYTES
from workers.memory import mapped_bytes, punch_hole, record_lock, shared_memory
from workers.pages import Pages

LIFETIME = 2
"""An entry gives way to another page once it was not sent for so many rounds (QEMU's
CACHED_PAGE_LIFETIME, in dirty-sync-counts)."""

LOCK_NS = 500_000_000
"""A holder works for 0.2 ms and can be preempted; one that hangs is replaced after 3 s, until when
those that wait for it have to be heard."""

ENTRY_BYTES = PAGE_BYTES + 8 + 8
_VOID = 0

Mask = NDArray[np.bool_]
Numbers = NDArray[np.int64]


class Found(NamedTuple):
    """Of the pages of a batch: those that travel as deltas, and their section; those that have not
    changed; how many were looked up, not in the cache, no smaller as a delta than whole."""

    deltas: Mask
    unchanged: Mask
    section: bytes = b""
    looked_up: int = 0
    missed: int = 0
    overflow: int = 0

    @classmethod
    def nothing(cls, pages: int) -> "Found":
        """All of `pages` travel whole."""
        return cls(np.zeros(pages, np.bool_), np.zeros(pages, np.bool_))


def cache_memory(pages: int) -> int:
    """The descriptor of a cache for `pages` at most, of which nothing exists yet."""
    return shared_memory("cache", pages * ENTRY_BYTES)


class SentCache:
    """The entries in memory file `fd`, made for all pages of all blocks; `slots`, a power of two,
    says at each call how many are in use."""

    def __init__(self, fd: int, block_pages: tuple[int, ...]) -> None:
        pages, memory = sum(block_pages), mapped_bytes(fd)
        ends = np.cumsum([pages * PAGE_BYTES, pages * 8])
        content, tags, ages = np.split(memory[: pages * ENTRY_BYTES], ends)
        self._words = content.view(np.uint64).reshape(pages, xbzrle.WORDS)
        self._tags = tags.view(np.int64)
        """Page + 1 of each entry, or _VOID."""
        self._ages = ages.view(np.int64)
        self._first_pages = np.cumsum((0, *block_pages))
        self._fd = fd

    def _numbers(self, block: int, pages: Pages) -> Numbers:
        numbers: Numbers = pages.astype(np.int64) + self._first_pages[block]
        return numbers

    def look_up(
        self, slots: int, block: int, pages: Pages, words: xbzrle.Words, asked: Mask
    ) -> Found:
        """What has changed of the pages that are `asked` for; `words` is what they hold now, uint64
        of shape (pages, 512)."""
        numbers = self._numbers(block, pages)
        at = numbers & (slots - 1)
        with record_lock(self._fd, LOCK_NS, _span(at)) as locked:
            if not locked:
                return Found.nothing(len(pages))
            rows = np.flatnonzero(asked & (self._tags[at] == numbers + 1))
            old = self._words[at[rows]]
        new = words[rows]
        runs = xbzrle.differences(old, new)
        sizes = xbzrle.sizes(runs, len(rows))
        chosen = (sizes > 0) & (sizes < PAGE_BYTES)
        looked_up = int(np.count_nonzero(asked))
        return Found(
            deltas=_mask(len(pages), rows[chosen]),
            unchanged=_mask(len(pages), rows[sizes == 0]),
            section=xbzrle.encode(runs, new, chosen),
            looked_up=looked_up,
            missed=looked_up - len(rows),
            overflow=int(np.count_nonzero(sizes >= PAGE_BYTES)),
        )

    def keep(
        self, slots: int, round_no: int, block: int, pages: Pages, words: xbzrle.Words, data: Mask
    ) -> None:
        """Note what is sent of `pages` in a round: entries are refreshed, or take the place of one
        that is old enough; of pages that are no `data`, but zeros, there are none."""
        numbers = self._numbers(block, pages)
        at = numbers & (slots - 1)
        with record_lock(self._fd, LOCK_NS, _span(at)) as locked:
            if locked:
                self._keep(at, round_no, numbers, words, data)
            else:
                self.void(slots, block, pages)

    def _keep(
        self, at: Numbers, round_no: int, numbers: Numbers, words: xbzrle.Words, data: Mask
    ) -> None:
        tags = self._tags[at]
        mine = tags == numbers + 1
        taken = data & (mine | (tags == _VOID) | (self._ages[at] + LIFETIME <= round_no))
        self._tags[at[mine | taken]] = _VOID
        rows = _first_of_each(at, np.flatnonzero(taken))
        self._words[at[rows]] = words[rows]
        self._ages[at[rows]] = round_no
        self._tags[at[rows]] = numbers[rows] + 1

    def void(self, slots: int, block: int, pages: Pages) -> None:
        """Forget what was sent of `pages`: nobody knows which of two copies arrives."""
        numbers = self._numbers(block, pages)
        at = numbers & (slots - 1)
        self._tags[at[self._tags[at] == numbers + 1]] = _VOID

    def resize(self, before: int, slots: int) -> None:
        """From `before` to so many slots: what is not in its place any more is forgotten."""
        tags = self._tags[: max(before, slots)]
        tags[((tags - 1) & (slots - 1)) != np.arange(len(tags))] = _VOID
        if slots < before:
            punch_hole(self._fd, slots * PAGE_BYTES, (before - slots) * PAGE_BYTES)


def _span(at: Numbers) -> tuple[int, int]:
    """The range that is locked for these slots: a byte for each, from the first on, how many."""
    if not len(at):
        return 0, 1
    first = int(at.min())
    return first, int(at.max()) + 1 - first


def _mask(pages: int, rows: Numbers) -> Mask:
    mask = np.zeros(pages, np.bool_)
    mask[rows] = True
    return mask


def _first_of_each(at: Numbers, rows: Numbers) -> Numbers:
    """Of `rows` those whose slot no row before them has: an entry that is new does not give way."""
    return rows[np.unique(at[rows], return_index=True)[1]]
