"""Guest memory, mapped to be read: of a range that exists, all of it, no byte is copied.

Reading a hole through a mapping allocates it, and reading behind the end of a file ends the
process: what exists is asked for each time before it is looked at. What becomes a hole in between
is allocated once more; where a file shrinks just then the worker dies, and its successor reads.
"""

import ctypes
import mmap
import os

import numpy as np
from numpy.typing import NDArray

from protocol.limits import PAGE_BYTES

_EXISTS = 1
"""In an answer of mincore; the other bits are reserved."""

_libc = ctypes.CDLL(None)
_libc.mincore.argtypes = [ctypes.c_size_t, ctypes.c_size_t, ctypes.c_void_p]


class MappedBlock:
    """The first `pages` pages of `fd`. The mapping ends with the object and all views of it."""

    def __init__(self, fd: int, pages: int, most: int) -> None:
        self._mapping = mmap.mmap(fd, pages * PAGE_BYTES, prot=mmap.PROT_READ)
        memory = np.frombuffer(self._mapping, np.uint8)
        self._pages = memory.reshape(pages, PAGE_BYTES)
        self._address = memory.ctypes.data
        self._exists = np.zeros(most, np.uint8)

    def maybe_pages(self, first: int, count: int) -> NDArray[np.uint8] | None:
        """`count` pages, `most` at most, from `first` on, uint8 of shape (count, 4096); None where
        not all of them are in memory."""
        at, exists = self._address + first * PAGE_BYTES, self._exists[:count]
        if _libc.mincore(at, count * PAGE_BYTES, exists.ctypes.data):
            return None
        return self._pages[first : first + count] if (exists & _EXISTS).all() else None

    def drop(self, first: int, count: int) -> None:
        """Let go of the page table's entries of these pages: 8 bytes each, 2 GiB of a TiB."""
        self._mapping.madvise(mmap.MADV_DONTNEED, first * PAGE_BYTES, count * PAGE_BYTES)


def maybe_mapped(fd: int, pages: int, most: int) -> MappedBlock | None:
    """The block in `fd`; None where it cannot be mapped, or what exists would not be told: that
    is told to those only who may write."""
    if not os.access(f"/proc/self/fd/{fd}", os.W_OK):
        return None
    try:
        return MappedBlock(fd, pages, most)
    except (OSError, ValueError):  # the latter: the file has shrunk
        return None
