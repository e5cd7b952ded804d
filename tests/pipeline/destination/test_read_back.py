"""What is still to be compared with what was sent: everything, once, and again when written."""

from dataclasses import dataclass, field
from typing import cast

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.destination.landing import Landing
from pipeline.destination.read_back import PIECE_PAGES, PLAN_PAGES, ReadBackList
from tests.workers.memories import indices
from workers.messages import Checked, ReadBack
from workers.pages import ZERO_HASH, Hashes, Pages

BLOCK_PAGES = (2 * PLAN_PAGES, 50)
ANY_HASH = 77


@dataclass
class WrittenPages:
    """A landing as far as the list looks at it."""

    pages: int
    marks: set[int] = field(default_factory=set)

    def is_written(self, pages: Pages) -> NDArray[np.bool_]:
        """Which of `pages` were written."""
        return np.isin(pages, self.written)

    @property
    def written(self) -> Pages:
        """The pages that were written."""
        return indices(*sorted(self.marks))


class Comparison:
    """A list, the landings and hashes that it goes by, and the means to write to them."""

    def __init__(self) -> None:
        self.landings = [WrittenPages(pages) for pages in BLOCK_PAGES]
        self.expected: list[Hashes] = [
            np.full(pages, ZERO_HASH, np.uint64) for pages in BLOCK_PAGES
        ]
        self.list = ReadBackList(cast(list[Landing], self.landings), self.expected)

    def write(self, block: int, *pages: int) -> None:
        """Data lands."""
        self.landings[block].marks.update(pages)
        self.expected[block][list(pages)] = ANY_HASH
        self.list.wrote(block, indices(*pages))

    def jobs(self) -> list[ReadBack]:
        """All jobs that there are."""
        return list(iter(self.list.maybe_next, None))

    def job(self) -> ReadBack:
        """The only job that there is."""
        (job,) = self.jobs()
        return job

    def answer(self, job: ReadBack, *wrong: int) -> None:
        """A worker has done a job and found these pages wrong."""
        self.list.heard(Checked(job.job, indices(*wrong).tobytes()))

    def mismatches(self) -> list[tuple[int, list[int]]]:
        """What is wrong."""
        return [(block, pages.tolist()) for block, pages in self.list.mismatches()]


def pages_of(job: ReadBack) -> list[int]:
    """The pages of a job."""
    return np.frombuffer(job.pages, np.uint32).tolist()


def test_every_written_page_is_asked_for_once_in_pieces() -> None:
    """A page that is never compared, or a piece that keeps a worker from its frames."""
    there = Comparison()
    many = range(3, 3 + 2 * PIECE_PAGES + 1)
    there.write(0, *many)
    there.write(1, 0, 49)
    there.list.plan()
    jobs = there.jobs()
    assert [(job.block, len(pages_of(job))) for job in jobs] == [
        (0, PIECE_PAGES),
        (0, PIECE_PAGES),
        (0, 1),
        (1, 2),
    ]
    assert [page for job in jobs[:3] for page in pages_of(job)] == list(many)
    assert len({job.job for job in jobs}) == 4
    there.list.plan()
    assert there.jobs() == []


def test_a_page_that_is_right_is_no_mismatch_and_one_that_is_not_is() -> None:
    """A wrong page that nobody hears of, or a right one for which a migration fails."""
    there = Comparison()
    there.write(0, 1, 2, 3)
    there.write(1, 2)
    there.list.plan()
    first, second = there.jobs()
    there.answer(second, 2)
    there.answer(first, 1, 3)
    assert there.mismatches() == [(0, [1, 3]), (1, [2])]


def test_a_page_that_is_written_again_is_compared_again() -> None:
    """The page of round 1 compared, and that of round 2 believed."""
    there = Comparison()
    there.write(0, 1, 2)
    there.list.plan()
    there.answer(there.job())
    there.write(0, 2)
    there.list.plan()
    again = there.job()
    assert pages_of(again) == [2]
    there.answer(again, 2)
    assert there.mismatches() == [(0, [2])]


def test_a_mismatch_of_a_page_written_meanwhile_says_nothing() -> None:
    """A migration that fails because a page was read while it was written."""
    there = Comparison()
    there.write(0, 1, 2)
    there.list.plan()
    job = there.job()
    there.write(0, 1)
    there.answer(job, 1, 2)
    assert there.mismatches() == [(0, [2])]
    there.list.plan()
    again = there.job()
    assert pages_of(again) == [1]
    there.answer(again)
    assert there.mismatches() == [(0, [2])]


@pytest.mark.parametrize("stale_comes_last", [False, True])
def test_a_stale_mismatch_does_not_outlive_the_comparison_that_came_after(
    stale_comes_last: bool,
) -> None:
    """The answer to a job from before the write, taken for that to the job from after it."""
    there = Comparison()
    there.write(0, 1)
    there.list.plan()
    stale = there.job()
    there.write(0, 1)
    there.list.plan()
    fresh = there.job()
    for job in (fresh, stale) if stale_comes_last else (stale, fresh):
        there.answer(job, *([1] if job is stale else []))
    assert there.mismatches() == []


def test_a_stale_answer_that_all_is_right_does_not_hide_a_mismatch() -> None:
    """A wrong page started because it was right before it was written."""
    there = Comparison()
    there.write(0, 1)
    there.list.plan()
    stale = there.job()
    there.write(0, 1)
    there.list.plan()
    fresh = there.job()
    there.answer(fresh, 1)
    there.answer(stale)
    assert there.mismatches() == [(0, [1])]


def test_a_mismatch_that_was_sent_once_more_is_forgotten() -> None:
    """A page that was mended and for which the migration fails all the same."""
    there = Comparison()
    there.write(0, 1)
    there.list.plan()
    there.answer(there.job(), 1)
    there.write(0, 1)
    assert there.mismatches() == []


def test_a_page_that_never_landed_is_a_mismatch() -> None:
    """A hole where data was sent: nothing to read back, and so never compared."""
    there = Comparison()
    there.write(0, 1)
    there.list.plan()
    there.answer(there.job())
    there.expected[0][7] = ANY_HASH
    there.expected[1][0] = ANY_HASH
    assert there.mismatches() == [(0, [7]), (1, [0])]


def test_plans_are_made_while_pages_land() -> None:
    """All of memory left to be compared when the guest has stopped."""
    there = Comparison()
    there.write(0, *range(PLAN_PAGES - 1))
    assert there.list.maybe_next() is None
    there.write(0, PLAN_PAGES)
    assert len(there.jobs()) == PLAN_PAGES // PIECE_PAGES


def test_uncompared_counts_down_to_nothing() -> None:
    """A downtime estimated without what is to be compared, or with what has been."""
    there = Comparison()
    there.write(0, 1, 2, 3)
    assert there.list.uncompared == 3
    there.list.plan()
    there.write(1, 5)
    assert there.list.uncompared == 4
    job = there.job()
    assert there.list.uncompared == 4
    there.answer(job, 2)
    assert there.list.uncompared == 1
    there.list.plan()
    there.answer(there.job())
    assert there.list.uncompared == 0


def test_it_is_done_when_no_job_waits_or_runs() -> None:
    """Verified before the last answer, or never."""
    there = Comparison()
    assert there.list.is_done
    there.write(0, *range(PIECE_PAGES + 1))
    there.list.plan()
    assert not there.list.is_done
    first, second = there.jobs()
    there.answer(second)
    assert not there.list.is_done
    there.answer(first)
    assert there.list.is_done
