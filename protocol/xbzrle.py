"""Deltas of pages against what was last sent of them, all pages of a batch at once.

A delta is the runs of 8-byte words that differ, and their new words: applied twice it changes
nothing more. The deltas of a batch are one section, its parts one behind the other:

    the new words of all runs, 8 bytes each
    where in its page each run starts, in words, 2 bytes each
    how many words it has, 2 bytes each
    how many runs each page has, 2 bytes each

All little-endian; runs rise within a page and do not touch.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from protocol.digest import Buffer
from protocol.errors import RemoteProtocolError
from protocol.limits import PAGE_BYTES

WORD_BYTES = 8
WORDS = PAGE_BYTES // WORD_BYTES
"""In a page."""
RUN_BYTES = 2 + 2
COUNT_BYTES = 2

_U16, _U64 = np.dtype("<u2"), np.dtype("<u8")

Words = NDArray[np.uint64]
Index = NDArray[np.int64]


class Runs(NamedTuple):
    """Runs of words that differ: in which row, from which word on, how many. int64, one shape."""

    rows: Index
    starts: Index
    lengths: Index


def differences(old: Words, new: Words) -> Runs:
    """Where the pages `new` differ from `old`, both uint64 of shape (pages, 512)."""
    framed = np.zeros((len(new), WORDS + 2), np.bool_)
    np.not_equal(old, new, out=framed[:, 1:-1])
    edges = np.flatnonzero(framed[:, 1:] != framed[:, :-1])
    rows, starts = np.divmod(edges[::2], WORDS + 1)
    return Runs(rows, starts, edges[1::2] - edges[::2])


def sizes(runs: Runs, pages: int) -> Index:
    """Bytes of the delta of each of `pages` pages, int64 of shape (pages,); 0 for an empty one."""
    counts = np.bincount(runs.rows, minlength=pages)
    words = np.bincount(runs.rows, runs.lengths, pages).astype(np.int64)
    return words * WORD_BYTES + counts * RUN_BYTES + (counts > 0) * COUNT_BYTES


def encode(runs: Runs, new: Words, chosen: NDArray[np.bool_]) -> bytes:
    """The section of the `chosen` pages of `new`, bool of shape (pages,); all of them have runs."""
    if not chosen.all():
        runs = Runs(*(part[chosen[runs.rows]] for part in runs))
    counts = np.bincount(runs.rows, minlength=len(new))[chosen]
    literals = new.reshape(-1)[_words_of(runs)].astype(_U64, copy=False)
    tables = (part.astype(_U16).tobytes() for part in (runs.starts, runs.lengths, counts))
    return b"".join((literals.tobytes(), *tables))


def apply(section: Buffer, pages: Words) -> None:
    """Change `pages`, uint64 of shape (pages, 512), by the section of their deltas, in its order.

    RemoteProtocolError, and nothing is changed, for a section that is not one of so many pages.
    """
    literals, runs = _decoded(section, len(pages))
    pages.reshape(-1)[_words_of(runs)] = literals


def _decoded(section: Buffer, pages: int) -> tuple[Words, Runs]:
    counts_at = len(section) - pages * COUNT_BYTES
    if counts_at < 0:
        raise RemoteProtocolError(f"{len(section)} bytes of deltas, of {pages} pages")
    counts = np.frombuffer(section, _U16, pages, counts_at).astype(np.int64)
    total = int(counts.sum())
    words, rest = divmod(counts_at - total * RUN_BYTES, WORD_BYTES)
    if words < 0 or rest or not counts.all():
        raise RemoteProtocolError(f"{len(section)} bytes of deltas, with {total} runs")
    literals = np.frombuffer(section, _U64, words)
    tables = np.frombuffer(section, _U16, 2 * total, words * WORD_BYTES).astype(np.int64)
    runs = Runs(np.repeat(np.arange(pages), counts), tables[:total], tables[total:])
    _check(runs, words)
    return literals, runs


def _check(runs: Runs, words: int) -> None:
    rows, starts, lengths = runs
    ends = starts + lengths
    same_page = rows[1:] == rows[:-1]
    if (
        int(lengths.sum()) != words
        or not lengths.all()
        or (len(ends) and int(ends.max()) > WORDS)
        or np.any(same_page & (starts[1:] <= ends[:-1]))
    ):
        raise RemoteProtocolError("deltas whose runs do not fit their pages")


def _words_of(runs: Runs) -> Index:
    """Which words the runs are, counted through all pages."""
    total = int(runs.lengths.sum())
    before = np.cumsum(runs.lengths) - runs.lengths
    return np.repeat(runs.rows * WORDS + runs.starts - before, runs.lengths) + np.arange(total)
