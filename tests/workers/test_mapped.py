"""Memory that is hashed where it lies: what is not there is never looked at through a mapping."""

import os
from pathlib import Path

import numpy as np
import pytest

from protocol.digest import page_seed
from protocol.errors import GuestError
from protocol.limits import PAGE_BYTES
from tests.protocol.samples import SESSION
from tests.workers.memories import allocated_pages, hash_of, memory_file, random_pages
from workers.mapped import maybe_mapped
from workers.pages import TableHasher

PAGES = 8
SEED = page_seed(SESSION)
CONTENT = random_pages(PAGES)
ALL = np.arange(PAGES, dtype=np.uint32)
HASHES = np.array(
    [hash_of(CONTENT[at : at + PAGE_BYTES]) for at in range(0, len(CONTENT), PAGE_BYTES)], np.uint64
)


def test_what_was_written_since_is_seen() -> None:
    """A copy of the pages as they were when they were mapped."""
    with memory_file(PAGES, CONTENT) as fd:
        hasher = TableHasher(SEED)
        assert hasher.differing(fd, ALL, HASHES).tolist() == []
        os.pwrite(fd, b"!", 5 * PAGE_BYTES)
        assert hasher.differing(fd, ALL, HASHES).tolist() == [5]


def test_a_hole_made_since_is_not_filled_again() -> None:
    """A page that a balloon has given back, allocated by whoever looks at it."""
    with memory_file(PAGES, CONTENT) as fd:
        mapped = maybe_mapped(fd, PAGES, PAGES)
        assert mapped is not None
        assert mapped.maybe_pages(2, 3) is not None
        os.ftruncate(fd, 3 * PAGE_BYTES)
        os.ftruncate(fd, PAGES * PAGE_BYTES)
        assert mapped.maybe_pages(2, 3) is None
        assert mapped.maybe_pages(0, 3) is not None
        assert allocated_pages(fd) == 3


def test_memory_that_shrinks_under_the_mapping_is_an_error() -> None:
    """A worker that dies of SIGBUS, again and again, instead of a reason."""
    with memory_file(PAGES, CONTENT) as fd:
        hasher = TableHasher(SEED)
        hasher.differing(fd, ALL, HASHES)
        os.ftruncate(fd, 3 * PAGE_BYTES)
        with pytest.raises(GuestError, match="it has shrunk"):
            hasher.differing(fd, ALL, HASHES)


@pytest.mark.parametrize("why", ["shrunk", "not ours"])
def test_what_cannot_be_mapped_safely_is_read(why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mapping behind the end of a file; holes filled because the kernel tells us of none."""
    with memory_file(PAGES, CONTENT) as fd:
        if why == "shrunk":
            os.ftruncate(fd, 3 * PAGE_BYTES)
        else:
            monkeypatch.setattr(os, "access", lambda *_: False)
        assert maybe_mapped(fd, PAGES, PAGES) is None
        assert TableHasher(SEED).differing(fd, ALL[:3], HASHES).tolist() == []


def test_what_is_looked_at_once_does_not_stay_mapped() -> None:
    """Page tables of a whole guest in each worker that reads its memory back."""
    pages = 1024
    with memory_file(pages, random_pages(pages)) as fd:
        table, every = np.zeros(pages, np.uint64), np.arange(pages, dtype=np.uint32)
        before = resident_pages()
        once, again = TableHasher(SEED, comes_back=False), TableHasher(SEED)
        once.differing(fd, every, table)
        assert resident_pages() - before < pages // 2
        again.differing(fd, every, table)
        assert resident_pages() - before >= pages


def resident_pages() -> int:
    """Pages of shared memory that this process has mapped and touched."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("RssShmem:")[2].split()[0]) * 1024 // PAGE_BYTES
