"""The destination's memory: pages written, zeros where something else was, holes cleared.

`_written` marks pages that may hold something other than zeros; all others are holes
and need nothing. Only punches holes, never truncates.
"""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from pipeline.extents import Extent, data_extents
from pipeline.guests.base import GuestBlock
from protocol import xbzrle
from protocol.errors import GuestError
from protocol.frames import DATA, DELTA, ZERO
from protocol.limits import PAGE_BYTES
from workers.memory import punch_hole
from workers.pages import PageBuffer, Pages, runs


class Landing:
    """The memory that one block of a guest lands in; written by the receiver alone."""

    def __init__(self, block: GuestBlock) -> None:
        self._fd = block.fd
        self._what = block.what
        self.pages = block.pages
        self._written: NDArray[np.bool_] = np.zeros(block.pages, np.bool_)
        self._changed: PageBuffer | None = None
        for first, count in data_extents(block.fd, block.pages):
            self._written[first : first + count] = True

    def clear(self, extents: Iterable[Extent]) -> None:
        """Make holes of `extents`, so that what was there before does not show through."""
        for first, count in extents:
            if self._written[first : first + count].any():
                self._punch(first * PAGE_BYTES, count * PAGE_BYTES)
                self._written[first : first + count] = False

    def _punch(self, start: int, count: int) -> None:
        try:
            punch_hole(self._fd, start, count)
        except OSError as error:
            raise GuestError(f"{self._what} takes no holes: {error.strerror}") from None

    def write(
        self, pages: Pages, kinds: NDArray[np.uint8], data: PageBuffer, delta_bytes: int = 0
    ) -> None:
        """Write a batch: its data pages lie in `data` one after the other, its deltas behind them.

        RemoteProtocolError for deltas that are none.
        """
        is_data = kinds == DATA
        if is_data.all():
            self._write_data(pages, data)
            return
        self._write_data(pages[is_data], data)
        if delta_bytes:
            start = int(np.count_nonzero(is_data)) * PAGE_BYTES
            section = data.bytes[start : start + delta_bytes]
            self._change(pages[kinds == DELTA], section)
        zeros = pages[kinds == ZERO]
        stale = zeros[self._written[zeros]]
        self.clear((int(stale[start]), end - start) for start, end in runs(stale))

    def _change(self, pages: Pages, section: memoryview) -> None:
        """Apply deltas to what was written last."""
        if self._changed is None or len(self._changed.words) < len(pages):
            self._changed = PageBuffer(len(pages))
        self._changed.read(self._fd, pages)
        xbzrle.apply(section, self._changed.words[: len(pages)])
        self._write_data(pages, self._changed)

    def _write_data(self, pages: Pages, data: PageBuffer) -> None:
        try:
            data.write(self._fd, pages)
        except OSError as error:
            raise GuestError(f"{self._what} cannot be written: {error.strerror or error}") from None
        self._written[pages] = True

    def is_written(self, pages: Pages) -> NDArray[np.bool_]:
        """Which of `pages` may hold something other than zeros."""
        return self._written[pages]

    @property
    def written(self) -> Pages:
        """The pages that may hold something other than zeros."""
        return np.flatnonzero(self._written).astype(np.uint32)
