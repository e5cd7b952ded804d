"""Which pages of a memory file exist. Asks the file system; reads and allocates nothing."""

import errno
import os

import numpy as np

from protocol.errors import RemoteProtocolError
from protocol.limits import PAGE_BYTES

Extent = tuple[int, int]
"""First page and number of pages."""


def data_extents(fd: int, pages: int) -> list[Extent]:
    """The ranges that exist in the first `pages` pages of `fd`, rising."""
    extents, end = [], 0
    while end < pages * PAGE_BYTES:
        try:
            start = os.lseek(fd, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:  # which is: a hole up to the end of the file
                raise
            break
        end = os.lseek(fd, start, os.SEEK_HOLE)
        first = start // PAGE_BYTES
        extents.append((first, min(-(-end // PAGE_BYTES), pages) - first))
    return [extent for extent in extents if extent[1] > 0]


def complement(extents: list[Extent], pages: int) -> list[Extent]:
    """What lies between rising `extents` in a block of `pages` pages."""
    starts = [0, *(first + count for first, count in extents)]
    ends = [*(first for first, _ in extents), pages]
    return [(start, end - start) for start, end in zip(starts, ends, strict=True) if end > start]


def encode_extents(extents: list[Extent]) -> bytes:
    """Pairs of uint64, little-endian."""
    return np.array(extents, "<u8").tobytes()


def decode_extents(data: bytes, pages: int) -> list[Extent]:
    """The extents in `data`; RemoteProtocolError when one lies outside a block of `pages` pages."""
    pairs = np.frombuffer(data, "<u8").reshape(-1, 2)
    ends = pairs[:, 0] + pairs[:, 1]
    if len(pairs) and (int(ends.max()) > pages or np.any(ends < pairs[:, 0])):
        raise RemoteProtocolError(f"a hole outside its block of {pages} pages")
    return [(int(first), int(count)) for first, count in pairs]
