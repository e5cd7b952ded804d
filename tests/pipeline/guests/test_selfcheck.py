"""The self-check finds every way in which a page can be wrong, and nothing else."""

import os
from collections.abc import Callable, Iterator
from typing import get_args

import numpy as np
import pytest

from pipeline.guests.content import ContentKind, Words
from pipeline.guests.workload import filling
from tests.pipeline.guests.helpers import PAGES, Filled, filled

TABLE_PAGES = 2
NUMBER = 300
WORKING = TABLE_PAGES + NUMBER
STATIC = 1900
BETWEEN = slice(1, 7)


def lost(words: Words) -> None:
    words[WORKING] = 0


def stale(words: Words) -> None:
    rewrite(words, words[WORKING, 0] - np.uint64(1))


def foreign_count(words: Words) -> None:
    rewrite(words, words[WORKING, 0] + np.uint64(1))


def rewrite(words: Words, count: np.uint64) -> None:
    words[WORKING, [0, -1]] = count
    words[WORKING, BETWEEN] = filling(np.array([NUMBER], np.uint64), np.array([count]), 6)[0]


def torn_between_the_stamps(words: Words) -> None:
    words[WORKING, 0] -= np.uint64(1)


def torn_at_the_tail(words: Words) -> None:
    words[WORKING, -1] -= np.uint64(1)


def torn_inside(words: Words) -> None:
    count = words[WORKING, 0]
    rewrite(words, count - np.uint64(1))
    words[WORKING, [0, -1]] = count


def foreign_page(words: Words) -> None:
    words[WORKING] = words[WORKING + 1]


def foreign_behind_the_written_words(words: Words) -> None:
    words[WORKING, 100] ^= np.uint64(1)


def static_page_foreign(words: Words) -> None:
    words[STATIC, 511] ^= np.uint64(1 << 63)


def static_page_lost(words: Words) -> None:
    words[STATIC] = 0


def static_page_where_zeros_were(words: Words) -> None:
    words[first_static_zero(words)] = words[STATIC]


def first_static_zero(words: Words) -> int:
    return 1500 + int(np.flatnonzero(~words[1500:].any(axis=1))[0])


def table_stale(words: Words) -> None:
    """The table and every page it speaks of, from before the last write: only the total knows."""
    words[0, NUMBER] -= np.uint64(1)
    stale(words)


def behind_the_table(words: Words) -> None:
    words[TABLE_PAGES - 1, -1] = 1


@pytest.fixture(scope="module", name="pristine")
def _pristine() -> Iterator[tuple[Filled, Words]]:
    with filled() as guest:
        guest.write(6000)
        words = guest.runner.memory.words
        assert words[STATIC].any()
        assert len(np.unique(guest.runner.counts[NUMBER : NUMBER + 2])) == 2
        yield guest, words.copy()


@pytest.mark.parametrize(
    ("damage", "line"),
    [
        (lost, f"page {WORKING} is lost: all zero"),
        (stale, f"page {WORKING} is stale: stamped"),
        (foreign_count, f"page {WORKING} is foreign: stamped"),
        (torn_between_the_stamps, f"page {WORKING} is torn: stamped"),
        (torn_at_the_tail, f"page {WORKING} is torn: stamped"),
        (torn_inside, f"page {WORKING} is torn: stamped"),
        (foreign_page, f"page {WORKING} is "),
        (foreign_behind_the_written_words, f"page {WORKING} is foreign: not what"),
        (static_page_foreign, f"page {STATIC} is foreign: not what"),
        (static_page_lost, f"page {STATIC} is lost: all zero"),
        (static_page_where_zeros_were, " is foreign: not what"),
        (table_stale, "the table in pages 0 to 1 is stale"),
        (behind_the_table, "behind the table is foreign"),
    ],
)
def test_each_damage_is_found_and_named(
    pristine: tuple[Filled, Words], damage: Callable[[Words], None], line: str
) -> None:
    """A check that lets a page through: corruption at the destination would go unseen."""
    guest, whole = pristine
    words = guest.runner.memory.words
    words[:] = whole
    assert guest.check() is None
    damage(words)
    found = guest.check()
    assert found is not None
    assert line in found
    assert "\n" not in found


def test_pages_are_wrong_in_any_place() -> None:
    """A piece or an edge of memory that the scan leaves out."""
    with filled(content="random") as guest:
        guest.write(6000)
        words = guest.runner.memory.words
        for page in (2, 601, 602, 1025, 1026, 2049, 2050, PAGES - 1):
            words[page, 300] ^= np.uint64(4)
            assert f"page {page} is foreign" in str(guest.check())
            words[page, 300] ^= np.uint64(4)
        assert guest.check() is None


def test_a_page_that_was_never_written_is_checked_too() -> None:
    """Pages with count 0 that are taken for right without a look."""
    with filled(content="text") as guest:
        guest.runner.memory.words[WORKING] = 0
        assert f"page {WORKING} is lost" in str(guest.check())


@pytest.mark.parametrize("content", get_args(ContentKind))
def test_every_content_is_right_after_filling(content: ContentKind) -> None:
    """A kind of content whose digest is not that of the memory."""
    with filled(content=content) as guest:
        assert guest.check() is None
        guest.write(1000)
        assert guest.check() is None


def test_zero_pages_stay_holes() -> None:
    """Zero pages that are written, or read through the mapping: a third of memory for nothing."""
    with filled() as guest:
        guest.check()
        blocks = os.fstat(guest.runner.memory.fd).st_blocks
        assert 0.60 < blocks / 8 / PAGES < 0.78
