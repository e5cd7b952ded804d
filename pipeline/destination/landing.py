"""The destination's memory: pages written, zeros where something else was, holes cleared.

`_written` marks pages that may hold something other than zeros; all others are holes
and need nothing. Only punches holes, never truncates.
"""

import ctypes
import os
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from pipeline.extents import Extent, data_extents
from pipeline.guests.base import GuestBlock
from protocol.errors import GuestError
from protocol.frames import PageKind
from protocol.limits import PAGE_BYTES
from workers.pages import PageBuffer, Pages, runs

_KEEP_SIZE, _PUNCH_HOLE = 1, 2


class Landing:
    """The memory that one block of a guest lands in; written by the receiver alone."""

    def __init__(self, block: GuestBlock) -> None:
        self._fd = block.fd
        self.pages = block.pages
        self._written: NDArray[np.bool_] = np.zeros(block.pages, np.bool_)
        for first, count in data_extents(block.fd, block.pages):
            self._written[first : first + count] = True

    def clear(self, extents: Iterable[Extent]) -> None:
        """Make holes of `extents`, so that what was there before does not show through."""
        for first, count in extents:
            if self._written[first : first + count].any():
                _punch(self._fd, first, count)
                self._written[first : first + count] = False

    def write(self, pages: Pages, kinds: NDArray[np.uint8], data: PageBuffer) -> None:
        """Write a batch: its data pages lie in `data` one after the other."""
        is_data = kinds == PageKind.DATA
        if is_data.all():
            self._write_data(pages, data)
        else:
            self._write_data(pages[is_data], data)
            zeros = pages[~is_data]
            stale = zeros[self._written[zeros]]
            self.clear((int(stale[start]), end - start) for start, end in runs(stale))

    def _write_data(self, pages: Pages, data: PageBuffer) -> None:
        try:
            data.write(self._fd, pages)
        except OSError as error:
            raise GuestError(f"guest memory cannot be written: {error.strerror or error}") from None
        self._written[pages] = True

    def is_written(self, pages: Pages) -> NDArray[np.bool_]:
        """Which of `pages` may hold something other than zeros."""
        return self._written[pages]

    @property
    def written(self) -> Pages:
        """The pages that may hold something other than zeros."""
        return np.flatnonzero(self._written).astype(np.uint32)


_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]


def _punch(fd: int, first: int, count: int) -> None:
    """Deallocate pages; the os module has no fallocate with a mode."""
    mode = _PUNCH_HOLE | _KEEP_SIZE
    if _libc.fallocate(fd, mode, first * PAGE_BYTES, count * PAGE_BYTES):
        number = ctypes.get_errno()
        raise OSError(number, f"cannot punch a hole: {os.strerror(number)}")
