"""Page contents out of a seed: zero, text-like, pointer-like, random, and a mix of them.

A page is a pure function of kind, seed and page number, so that it can be made again
anywhere. Draws raw numbers of PCG64 only, whose stream numpy keeps from version to version.
"""

import functools
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from protocol.limits import PAGE_BYTES

ContentKind = Literal["zero", "text", "pointer", "random", "mixed"]
Words = NDArray[np.uint64]

PAGE_WORDS = PAGE_BYTES // 8

_POOL_PAGES = 512
"""2 MiB of each sort. zlib level 1 sees 32 KiB back, zstd level 1 512 KiB: in a batch of
64 pages a page of the pool comes twice for one page in twenty."""

_ZERO, _TEXT, _POINTER, _RANDOM = range(4)
_SHARES: dict[ContentKind, tuple[int, int, int, int]] = {
    "zero": (100, 0, 0, 0),
    "text": (0, 100, 0, 0),
    "pointer": (0, 0, 100, 0),
    "random": (0, 0, 0, 100),
    "mixed": (30, 35, 30, 5),
}
"""Percent of the pages that are zero, text-like, pointer-like and random."""

_TWEAKED_WORDS = slice(8, None, 128)
_LETTERS = np.uint64(0x6060606060606060)
_LOW_NIBBLES = np.uint64(0x0F0F0F0F0F0F0F0F)


def mix(numbers: Words) -> Words:
    """A well-spread 64-bit number for each one given (the finalizer of splitmix64)."""
    x = numbers + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


class Content:
    """The pages of one memory. `seed` is 0 to 2**63 - 1."""

    def __init__(self, kind: ContentKind, seed: int) -> None:
        self._bounds = np.cumsum(_SHARES[kind])
        self._salt = mix(np.array([seed], np.uint64))

    def fill(self, first_page: int, out: Words) -> None:
        """Make the pages from `first_page` on, one a row of `out` (n, 512)."""
        draw = mix(np.arange(first_page, first_page + len(out), dtype=np.uint64) ^ self._salt)
        percent = (draw % np.uint64(100)).astype(np.int64)
        sort = np.searchsorted(self._bounds, percent, side="right")
        member = (draw >> np.uint64(8)).astype(np.int64) % _POOL_PAGES
        np.take(_pool(), sort * _POOL_PAGES + member, axis=0, out=out, mode="clip")
        _tell_apart(out, sort, draw)


def _tell_apart(out: Words, sort: NDArray[np.intp], draw: Words) -> None:
    letters = (draw & _LOW_NIBBLES | _LETTERS)[:, None]
    written = ((sort == _TEXT) | (sort == _POINTER))[:, None]
    np.copyto(out[:, _TWEAKED_WORDS], letters, where=written)
    random = np.flatnonzero(sort == _RANDOM)
    out[random] ^= draw[random, None]


@functools.cache
def _pool() -> Words:
    """The four sorts, one after the other; the same for every seed. Takes 0.1 s to make."""
    raw = np.random.PCG64(2015)
    zero = np.zeros((_POOL_PAGES, PAGE_WORDS), np.uint64)
    random: Words = raw.random_raw((_POOL_PAGES, PAGE_WORDS))
    return np.concatenate((zero, _text_pool(raw), _pointer_pool(raw), random))


def _text_pool(raw: np.random.PCG64) -> Words:
    """Words of 2 to 9 letters, few of them often and most of them seldom."""
    letters = (raw.random_raw((2048, 9)) % np.uint64(26)).astype(np.uint8) + ord("a")
    lengths = (raw.random_raw(2048) % np.uint64(8)).tolist()
    pairs = zip(letters, lengths, strict=True)
    vocabulary = [word[: length + 2].tobytes() for word, length in pairs]
    size = _POOL_PAGES * PAGE_BYTES
    uniform = raw.random_raw(size // 3) / 2.0**64
    text = b" ".join([vocabulary[rank] for rank in (2048 * uniform**3).astype(np.int64).tolist()])
    return np.frombuffer(text[:size], np.uint64).reshape(_POOL_PAGES, PAGE_WORDS)


def _pointer_pool(raw: np.random.PCG64) -> Words:
    """Three words in five point into a heap of 16 MiB a page, the rest are small or zero."""
    draw = raw.random_raw((_POOL_PAGES, PAGE_WORDS))
    heap = np.uint64(0x7F00_0000_0000) + (draw[:, :1] & np.uint64(0xFF_FF00_0000))
    pointers = heap + (draw >> np.uint64(40) & np.uint64(0xFF_FFF0))
    sort = draw % np.uint64(5)
    small = draw >> np.uint64(8) & np.uint64(0x3F)
    return np.where(sort < 3, pointers, np.where(sort == 3, small, np.uint64(0)))
