"""The workload: which pages it writes, how often, and at what rate."""

from dataclasses import replace

import numpy as np
import pytest

from pipeline.guests.workload import Pattern, Workload, lay_out
from protocol.errors import GuestError
from protocol.limits import PAGE_BYTES
from tests.pipeline.guests.helpers import PAGES, UNIFORM, Filled, filled

MS = 1_000_000


def run_for(guest: Filled, ms: int, step_ms: int = 2) -> None:
    """Time goes by in steps; what is due at once is written at once."""
    runner = guest.runner
    for now_ns in range(runner.clock_ns, runner.clock_ns + ms * MS, step_ms * MS):
        while runner.run(now_ns + step_ms * MS):
            pass


def spread(pattern: Pattern, writes: int) -> list[int]:
    """The counts of the working pages after `writes` writes."""
    with filled(pattern=pattern, dirty_rate=writes * PAGE_BYTES) as guest:
        run_for(guest, 1000)
        assert guest.check() is None
        counts: list[int] = guest.runner.counts.tolist()
    return counts


def test_idle_writes_nothing() -> None:
    """An idle guest that is dirty: its migration would take rounds for nothing."""
    assert sum(spread("idle", 1000)) == 0


def test_sequential_goes_round_page_by_page() -> None:
    """A position that is lost between two ticks: pages would be skipped or written twice."""
    assert spread("sequential", 1500) == [3] * 300 + [2] * 300


def test_uniform_touches_every_page_about_equally() -> None:
    """A page that is never drawn, or the last one left out: the working set would be smaller."""
    counts = spread("uniform", 60_000)
    assert min(counts) > 50
    assert max(counts) < 160


def test_zipf_touches_few_pages_often_and_most_seldom() -> None:
    """A flat draw under the name of zipf; or one that never reaches the last pages."""
    counts = spread("zipf", 60_000)
    assert counts[0] > 1.5 * counts[1] > 2 * counts[3]
    assert 0.10 < counts[0] / 60_000 < 0.12
    assert sum(counts[300:]) > 3000


def test_a_page_drawn_twice_in_a_tick_counts_twice() -> None:
    """Fancy indexing drops repeated pages: the table would fall behind the counter."""
    with filled() as guest:
        guest.runner.write(np.array([5, 9, 5, 5, 9, 0]))
        assert guest.runner.counts[[0, 5, 9]].tolist() == [1, 3, 2]
        assert guest.runner.total == 6
        assert guest.check() is None


def test_only_table_and_drawn_pages_change() -> None:
    """A write outside its page, or to the static rest."""
    with filled() as guest:
        words = guest.runner.memory.words
        before = words.copy()
        guest.runner.write(np.array([3, 599]))
        changed = np.flatnonzero((words != before).any(axis=1))
        table_pages = guest.runner.layout.table_pages
        assert changed.tolist() == [0, 1, table_pages + 3, table_pages + 599]


@pytest.mark.parametrize("bytes_per_page", [16, 17, 24, 64, 4095, 4096])
def test_as_many_bytes_are_written_as_asked(bytes_per_page: int) -> None:
    """Stamps that are counted on top, or a last word that is cut off."""
    with filled(bytes_per_page=bytes_per_page, content="zero") as guest:
        guest.runner.write(np.array([1]))
        page = guest.runner.memory.words[guest.runner.layout.table_pages + 1]
        assert np.count_nonzero(page) == -(-bytes_per_page // 8)
        guest.write(500)
        assert guest.check() is None


@pytest.mark.parametrize("step_ms", [2, 7, 50])
def test_the_rate_is_kept_whatever_the_ticks(step_ms: int) -> None:
    """Fractions of a page that are dropped at each tick: a rate that depends on the ticks."""
    with filled() as guest:
        run_for(guest, 1000, step_ms)
        assert guest.runner.statistics().dirty_rate == pytest.approx(40 << 20, rel=0.02)
        assert guest.runner.statistics().dirty_rate is None


def test_at_most_100_ms_are_caught_up_with() -> None:
    """A guest that was held for long and then writes without end."""
    with filled() as guest:
        run_for(guest, 10_000, 10_000)
        assert guest.runner.total == (40 << 20) // 10 // PAGE_BYTES


def test_time_spent_stopped_is_not_caught_up_with() -> None:
    """A guest that makes up for its downtime: the first round after it would be twice as big."""
    with filled() as guest:
        guest.runner.go_on(50 * MS)
        assert not guest.runner.run(50 * MS)
        assert guest.runner.total == 0


def test_a_slow_rate_still_writes() -> None:
    """A backlog limit below one page: the guest would never write at all."""
    with filled(dirty_rate=2 * PAGE_BYTES) as guest:
        run_for(guest, 3000)
        assert guest.runner.total == 6


def test_the_same_seed_gives_the_same_memory() -> None:
    """A draw that depends on more than the seed: no run could be repeated."""
    images = []
    for step_ms in (2, 10):
        with filled() as guest:
            run_for(guest, 500, step_ms)
            images.append(guest.runner.memory.words.copy())
    assert (images[0] == images[1]).all()


@pytest.mark.parametrize(
    ("changes", "memory_bytes", "words"),
    [
        ({}, 601 * PAGE_BYTES, "600 pages and its table of 2 in a memory of 601"),
        ({"working_set": PAGE_BYTES}, 1 << 20, "at least 4"),
        ({"bytes_per_page": 8}, 8 << 20, "bytes-per-page 8, allowed are 16 to 4096"),
        ({"bytes_per_page": 4097}, 8 << 20, "4097"),
        ({}, 8 << 20 | 1, "multiple of 4096"),
        ({}, 0, "memory of 0 bytes"),
    ],
)
def test_what_does_not_fit_is_refused(
    changes: dict[str, int], memory_bytes: int, words: str
) -> None:
    """A working set beyond the end of memory: the guest would die instead of saying so."""
    workload: Workload = replace(UNIFORM, **changes)  # type: ignore[arg-type]
    with pytest.raises(GuestError, match=words):
        lay_out(workload, memory_bytes)


def test_a_working_set_that_just_fits_is_taken() -> None:
    """Off by one at the end of memory."""
    assert lay_out(UNIFORM, 602 * PAGE_BYTES).working_pages == 600
    with filled(pages=602) as guest:
        guest.write(5000)
        assert guest.check() is None
        assert PAGES > 602
