"""What a synthetic guest does: writes to the pages of its working set, by a pattern, in time.

Memory begins with a table of one 64-bit count a working page, then comes the working
set, then what never changes. A write to page p raises its count c, stamps c into the
page's first and last word and fills words in between by (p, c). Time is an argument.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from pipeline.guests.base import GuestStatistics
from pipeline.guests.content import PAGE_WORDS, ContentKind, Words, mix
from pipeline.guests.memory import GuestMemory
from protocol.errors import GuestError
from protocol.limits import PAGE_BYTES

Pattern = Literal["idle", "uniform", "zipf", "sequential"]
Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]

MIN_WORKING_PAGES = 4
BACKLOG_S = 0.1
PIECE_PAGES = 1024
"""Pages written between two looks at the socket: 4 MiB when whole pages are, 3 ms."""


@dataclass(frozen=True)
class Workload:
    """What to do. `dirty_rate` is pages written x 4096 a second, a page that is written
    twice counting twice; `working_set` is bytes; `bytes_per_page` (16 to 4096) includes the
    two stamps; `seed` is 0 to 2**63 - 1."""

    pattern: Pattern
    working_set: Count
    dirty_rate: Count
    bytes_per_page: Annotated[int, Meta(ge=16, le=PAGE_BYTES)]
    content: ContentKind
    seed: Count


@dataclass(frozen=True)
class Layout:
    """Where things lie in memory, in pages: the table, then the working set, then the rest."""

    pages: int
    table_pages: int
    working_pages: int
    filled_words: int

    def working_rows(self, first_page: int, pages: Words) -> tuple[int, Words]:
        """The first working page among `pages` (which begin at `first_page`), and those rows."""
        start = max(self.table_pages - first_page, 0)
        end = max(self.table_pages + self.working_pages - first_page, 0)
        return max(first_page - self.table_pages, 0), pages[start:end]


def lay_out(workload: Workload, memory_bytes: int) -> Layout:
    """The layout of `memory_bytes` under `workload`; GuestError where it does not fit."""
    pages, odd = divmod(memory_bytes, PAGE_BYTES)
    working = workload.working_set // PAGE_BYTES
    table = -(-working // PAGE_WORDS)
    if odd or not pages:
        raise GuestError(f"memory of {memory_bytes} bytes, a multiple of {PAGE_BYTES} is needed")
    if not 16 <= workload.bytes_per_page <= PAGE_BYTES:
        raise GuestError(f"bytes-per-page {workload.bytes_per_page}, allowed are 16 to 4096")
    if not MIN_WORKING_PAGES <= working <= pages - table:
        raise GuestError(
            f"a working set of {working} pages and its table of {table} in a memory of {pages}"
            f" pages; at least {MIN_WORKING_PAGES}, and no more than fits, are needed"
        )
    return Layout(pages, table, working, -(-workload.bytes_per_page // 8) - 2)


def filling(pages: Words, counts: Words, words: int) -> Words:
    """What stands between the stamps: (n, words) for working pages at counts; zero at count 0.

    Looks like an array of pointers, so that a page that was written still compresses.
    """
    base = mix(pages * np.uint64(0x9E3779B97F4A7C15) + counts)
    values = base[:, None] + np.arange(words, dtype=np.uint64) * np.uint64(40)
    values[counts == 0] = 0
    return values


class Runner:
    """A workload at work on a memory. Owned by one thread, which says what time it is.

    `clock_ns` is when it last ran; `total` how many writes there were, ever.
    """

    def __init__(self, workload: Workload, memory: GuestMemory) -> None:
        self.workload = workload
        self.memory = memory
        self.layout = lay_out(workload, memory.pages * PAGE_BYTES)
        self.prng = np.random.PCG64(workload.seed)
        self.position = 0
        self.total = 0
        self.clock_ns = 0
        _, self._working = self.layout.working_rows(0, memory.words)
        self._share = 1.0
        self._credit = 0.0
        self._ran_ns = 0
        self._written = 0
        self._gap_ms: float | None = None

    @property
    def counts(self) -> Words:
        """The table: the count of every working page; a view."""
        table = self.memory.words[: self.layout.table_pages].reshape(-1)
        return table[: self.layout.working_pages]

    def go_on(self, now_ns: int) -> None:
        """Take up work; the time since `clock_ns` was spent stopped."""
        self.clock_ns = now_ns
        self._credit = 0.0

    def arrived(self, now_ns: int, clock_ns: int) -> None:
        """Take up work for the first time here, after the last time there."""
        self._gap_ms = (now_ns - clock_ns) / 1e6
        self.go_on(now_ns)

    def slow_down(self, percent: int) -> None:
        """Have so much less processor time from now on."""
        self._share = 1 - percent / 100

    def run(self, now_ns: int) -> bool:
        """Write what is due, PIECE_PAGES at most; True where more is due at once.

        What was missed beyond BACKLOG_S is not caught up with.
        """
        elapsed_ns = now_ns - self.clock_ns
        self.clock_ns = now_ns
        self._ran_ns += elapsed_ns
        if self.workload.pattern == "idle":
            return False
        rate = self.workload.dirty_rate * self._share
        due = self._credit + elapsed_ns / 1e9 * rate
        due = min(due, max(BACKLOG_S * rate, PAGE_BYTES))
        writes = min(int(due // PAGE_BYTES), PIECE_PAGES)
        self.write(self._pick(writes))
        self._credit = due - writes * PAGE_BYTES
        return self._credit >= PAGE_BYTES

    def write(self, picked: NDArray[np.int64]) -> None:
        """Write to working pages, by number in the working set; one may come repeatedly."""
        pages, times = np.unique(picked, return_counts=True)
        counts = self.counts[pages] + times.astype(np.uint64)
        words = self.layout.filled_words
        self.counts[pages] = counts
        self._working[pages, 0] = counts
        self._working[pages, 1 : 1 + words] = filling(pages.astype(np.uint64), counts, words)
        self._working[pages, -1] = counts
        self.total += picked.size
        self._written += picked.size

    def statistics(self) -> GuestStatistics:
        """The rate since the last call, while it ran; and the gap before it ran here."""
        written = self._written * PAGE_BYTES
        rate = written / (self._ran_ns / 1e9) if self._ran_ns else None
        self._written = 0
        self._ran_ns = 0
        return GuestStatistics(rate, self._gap_ms)

    def _pick(self, writes: int) -> NDArray[np.int64]:
        pages = self.layout.working_pages
        if self.workload.pattern == "sequential":
            picked = (self.position + np.arange(writes)) % pages
            self.position = (self.position + writes) % pages
            return picked
        uniform = np.random.Generator(self.prng).random(writes)
        if self.workload.pattern == "zipf":
            # Page k is drawn in proportion to log((k + 2) / (k + 1)), about 1 / (k + 1).
            return np.minimum((pages + 1) ** uniform, pages).astype(np.int64) - 1
        return (uniform * pages).astype(np.int64)
