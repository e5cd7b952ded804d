"""The cache of sent pages: what it takes for the page as it was sent last is that."""

import os
from collections.abc import Iterator

import numpy as np
import pytest

from protocol import xbzrle
from tests.pipeline.guests.helpers import python
from tests.workers.memories import allocated_pages
from workers.pages import Pages
from workers.sent_cache import ENTRY_BYTES, LIFETIME, Found, SentCache, cache_memory

HOLDS_THE_LOCK = """
import fcntl, sys
file = open(sys.argv[1], "r+b")
fcntl.lockf(file, fcntl.LOCK_EX)
print("up", flush=True)
input()
"""
BLOCKS = (4, 60)
"""Pages of the second one are meant, numbered through both: so is every test's list of pages."""
PAGES = sum(BLOCKS)
SLOTS = 16


@pytest.fixture(name="fd")
def _fd() -> Iterator[int]:
    fd = cache_memory(PAGES)
    yield fd
    os.close(fd)


@pytest.fixture(name="cache")
def _cache(fd: int) -> SentCache:
    return SentCache(fd, BLOCKS)


def content(*seeds: int) -> xbzrle.Words:
    """Pages, each of its seed; 0 is a zero page."""
    rows = [np.random.default_rng(s).integers(1, 2**63, xbzrle.WORDS, np.uint64) for s in seeds]
    return np.array([row * bool(seed) for seed, row in zip(seeds, rows, strict=True)], np.uint64)


def touched(words: xbzrle.Words, word: int = 7) -> xbzrle.Words:
    """The same, but for one word of each page."""
    changed = words.copy()
    changed[:, word] += np.uint64(1)
    return changed


def in_block(pages: list[int]) -> Pages:
    """Pages by their numbers in the second block."""
    return np.array(pages, np.uint32) - BLOCKS[0]


def keep(cache: SentCache, pages: list[int], words: xbzrle.Words, round_no: int = 1) -> None:
    """Note that they were sent."""
    cache.keep(SLOTS, round_no, 1, in_block(pages), words, words.max(axis=1) > 0)


def look_up(
    cache: SentCache, pages: list[int], words: xbzrle.Words, slots: int = SLOTS
) -> tuple[Found, list[str]]:
    """What becomes of pages that were all asked for: a delta, whole, or nothing of each."""
    found = cache.look_up(slots, 1, in_block(pages), words, words.max(axis=1) > 0)
    kinds = np.where(found.deltas, "delta", np.where(found.unchanged, "nothing", "whole"))
    return found, kinds.tolist()


def test_a_page_that_is_known_travels_as_its_delta(cache: SentCache) -> None:
    """A delta against another page's content, or another time's."""
    first = content(1, 2, 3)
    keep(cache, [5, 6, 40], first)
    new = np.concatenate([touched(first[:2]), content(9), first[2:]])
    found, kinds = look_up(cache, [5, 6, 20, 40], new)
    assert kinds == ["delta", "delta", "whole", "nothing"]
    assert (found.looked_up, found.missed, found.overflow) == (4, 1, 0)
    applied = first[:2].copy()
    xbzrle.apply(found.section, applied)
    assert np.array_equal(applied, new[:2])


def test_a_page_that_has_become_another_travels_whole(cache: SentCache) -> None:
    """A delta that is larger than its page."""
    keep(cache, [5], content(1))
    found, kinds = look_up(cache, [5], content(2))
    assert (found.section, found.missed, found.overflow) == (b"", 0, 1)
    assert kinds == ["whole"]


def test_a_zero_page_is_forgotten(cache: SentCache) -> None:
    """A delta against what the page held before it was cleared."""
    keep(cache, [5], content(1))
    keep(cache, [5], content(0), 2)
    found, kinds = look_up(cache, [5], touched(content(1)))
    assert (found.missed, kinds) == (1, ["whole"])
    keep(cache, [5], content(0), 3)
    assert look_up(cache, [5], content(0))[1] == ["whole"]


def test_who_comes_too_early_finds_the_slot_taken(cache: SentCache) -> None:
    """A cache in which two pages of one slot throw each other out at every turn."""
    keep(cache, [5], content(1), 1)
    keep(cache, [5 + SLOTS], content(2), LIFETIME)
    assert look_up(cache, [5], touched(content(1)))[0].missed == 0
    keep(cache, [5 + SLOTS], content(2), 1 + LIFETIME)
    assert look_up(cache, [5], touched(content(1)))[0].missed == 1
    assert look_up(cache, [5 + SLOTS], touched(content(2)))[0].missed == 0


def test_a_hit_refreshes_the_age(cache: SentCache) -> None:
    """The page that is sent in each round, thrown out by one that came once."""
    for count in (1, 2, 3):
        keep(cache, [5], content(count), count)
    keep(cache, [5 + SLOTS], content(9), 3 + LIFETIME - 1)
    assert look_up(cache, [5], touched(content(3)))[0].missed == 0


def test_two_pages_of_a_batch_with_one_slot(cache: SentCache) -> None:
    """The content of one under the name of the other."""
    both = content(1, 2)
    keep(cache, [5, 5 + SLOTS], both)
    found, kinds = look_up(cache, [5, 5 + SLOTS], touched(both))
    assert (found.missed, kinds) == (1, ["delta", "whole"])
    cache.keep(1, 9, 1, in_block([5, 6, 7]), content(5, 6, 7), np.ones(3, np.bool_))
    assert look_up(cache, [5, 6, 7], content(5, 6, 7), slots=1)[1] == ["nothing", "whole", "whole"]


def test_what_is_void_is_not_known(cache: SentCache) -> None:
    """A delta against a copy that perhaps never arrived; another page's entry voided with it."""
    keep(cache, [5, 6], content(1, 2))
    cache.void(SLOTS, 1, in_block([5, 6 + SLOTS]))
    assert look_up(cache, [5, 6], touched(content(1, 2)))[1] == ["whole", "delta"]


@pytest.mark.parametrize(
    ("slots", "known"), [(4, []), (8, [5, 6]), (32, [5, 6, 13]), (16, [5, 6, 13])]
)
def test_another_size(cache: SentCache, fd: int, slots: int, known: list[int]) -> None:
    """An entry found under a slot that is no longer its page's; memory that is not given back."""
    pages, words = [5, 6, 13, 22], content(1, 2, 3, 4)
    keep(cache, pages, words)
    before = allocated_pages(fd)
    cache.resize(SLOTS, slots)
    cache.keep(slots, 2, 1, in_block([22]), content(9), np.ones(1, np.bool_))
    cache.resize(slots, SLOTS)
    _, kinds = look_up(cache, [5, 6, 13], touched(words[:3]))
    found = zip([5, 6, 13], kinds, strict=True)
    assert [page for page, kind in found if kind == "delta"] == known
    assert look_up(cache, [22], touched(words[3:]))[1] == ["whole"], "not what it was before"
    if slots < SLOTS:
        assert allocated_pages(fd) < before


def test_a_lock_that_is_not_to_be_had(cache: SentCache, fd: int) -> None:
    """Workers that all stand still because one does; or that go on, and leave what is old."""
    keep(cache, [5, 6], content(1, 2))
    with python(HOLDS_THE_LOCK, f"/proc/{os.getpid()}/fd/{fd}"):
        found, kinds = look_up(cache, [5], touched(content(1)))
        assert (found.section, found.missed, kinds) == (b"", 0, ["whole"])
        keep(cache, [5], touched(content(1)), 2)
    assert look_up(cache, [5, 6], touched(content(1, 2)))[1] == ["whole", "delta"]


def test_an_empty_cache_takes_no_memory(fd: int) -> None:
    """Room for a whole guest, allocated before a page was sent."""
    assert os.fstat(fd).st_size >= PAGES * ENTRY_BYTES
    assert allocated_pages(fd) == 0
