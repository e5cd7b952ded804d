"""Memory files for tests, and what they should hold."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import xxhash
from numpy.typing import NDArray

from protocol.digest import page_seed
from protocol.limits import PAGE_BYTES
from tests.protocol.samples import SESSION
from workers.memory import shared_memory
from workers.pages import ZERO_HASH


@contextmanager
def memory_file(pages: int, content: bytes = b"") -> Iterator[int]:
    """A memory file of `pages` pages that begins with `content` and is a hole behind it."""
    fd = shared_memory("test", pages * PAGE_BYTES)
    try:
        if content:
            os.pwrite(fd, content, 0)
        yield fd
    finally:
        os.close(fd)


def random_pages(count: int, seed: int = 1) -> bytes:
    """Pages that do not compress, each different."""
    return np.random.default_rng(seed).bytes(count * PAGE_BYTES)


def text_pages(count: int, seed: int = 1) -> bytes:
    """Pages that shrink to less than half, each different."""
    letters = np.random.default_rng(seed).integers(97, 100, count * PAGE_BYTES, np.uint8)
    return letters.tobytes()


def page(content: bytes, index: int) -> bytes:
    """Page number `index` of `content`."""
    return content[index * PAGE_BYTES : (index + 1) * PAGE_BYTES]


def page_at(fd: int, index: int) -> bytes:
    """Page number `index` of a file."""
    return os.pread(fd, PAGE_BYTES, index * PAGE_BYTES)


def allocated_pages(fd: int) -> int:
    """How many pages of a memory file exist."""
    return os.fstat(fd).st_blocks * 512 // PAGE_BYTES


def indices(*pages: int) -> NDArray[np.uint32]:
    """A list of page indices as it travels."""
    return np.array(pages, np.uint32)


def hash_of(content: bytes) -> int:
    """What a page's hash must be, taken the plain way."""
    zero = not any(content)
    return ZERO_HASH if zero else xxhash.xxh3_64_intdigest(content, page_seed(SESSION))
