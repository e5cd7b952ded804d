"""What the memory of a synthetic guest must look like: filled at first, proved at any time.

Goes through memory in pieces of 4 MiB, whatever its size. Invariant: `check` answers
None only if every byte is what the guest last wrote there.
"""

from collections.abc import Iterator

import numpy as np
import xxhash
from numpy.typing import NDArray

from pipeline.guests.content import PAGE_WORDS, Content, Words
from pipeline.guests.workload import Layout, Runner, filling

_PIECE_PAGES = 1024


def fill(runner: Runner) -> int:
    """Write the content of a fresh memory; the digest of all that the workload leaves alone.

    Zero pages are not written: memory is all holes before.
    """
    digest = xxhash.xxh3_64()
    for first, pages in _made(runner):
        digest.update(pages.data)
        runner.memory.write(first, pages)
    return digest.intdigest()


def check(runner: Runner, static_digest: int) -> str | None:
    """None when no page is lost, stale, torn or foreign; else a line with the first such page."""
    layout = runner.layout
    digest = xxhash.xxh3_64()
    for first, pages in _read(runner):
        lowest, rows = layout.working_rows(first, pages)
        bad = _first_bad(layout, lowest, rows, runner.counts[lowest : lowest + len(rows)])
        if bad is not None:
            return bad
        _blank(layout, rows)
        digest.update(pages.data)
    return _check_table(runner) or (
        None if digest.intdigest() == static_digest else _find_foreign(runner)
    )


def _pieces(layout: Layout) -> Iterator[tuple[int, Words]]:
    buffer = np.empty((_PIECE_PAGES, PAGE_WORDS), np.uint64)
    for first in range(layout.table_pages, layout.pages, _PIECE_PAGES):
        yield first, buffer[: layout.pages - first]


def _read(runner: Runner) -> Iterator[tuple[int, Words]]:
    for first, pages in _pieces(runner.layout):
        runner.memory.read(first, pages)
        yield first, pages


def _made(runner: Runner) -> Iterator[tuple[int, Words]]:
    content = Content(runner.workload.content, runner.workload.seed)
    for first, pages in _pieces(runner.layout):
        content.fill(first, pages)
        _blank(runner.layout, runner.layout.working_rows(first, pages)[1])
        yield first, pages


def _blank(layout: Layout, rows: Words) -> None:
    rows[:, : 1 + layout.filled_words] = 0
    rows[:, -1] = 0


def _first_bad(layout: Layout, lowest: int, rows: Words, counts: Words) -> str | None:
    numbers = np.arange(lowest, lowest + len(rows), dtype=np.uint64)
    wrong = (rows[:, 0] != counts) | (rows[:, -1] != counts) | _torn(layout, numbers, rows, counts)
    if not wrong.any():
        return None
    at = int(wrong.argmax())
    page = layout.table_pages + lowest + at
    how = _how(layout, numbers[at : at + 1], rows[at : at + 1], int(counts[at]))
    return f"page {page} is {how}; the table says {counts[at]}"


def _torn(layout: Layout, numbers: Words, rows: Words, counts: Words) -> NDArray[np.bool_]:
    written = slice(1, 1 + layout.filled_words)
    wrong: NDArray[np.bool_] = (
        rows[:, written] != filling(numbers, counts, layout.filled_words)
    ).any(axis=1)
    return wrong


def _how(layout: Layout, number: Words, row: Words, count: int) -> str:
    head, tail = int(row[0, 0]), int(row[0, -1])
    if not row.any():
        return "lost: all zero"
    if head != tail:
        return f"torn: stamped {head} at its head and {tail} at its tail"
    if _torn(layout, number, row, row[:, 0]).any():
        return f"torn: stamped {head}, but not written as at {head}"
    return f"stale: stamped {head}" if head < count else f"foreign: stamped {head}"


def _check_table(runner: Runner) -> str | None:
    found = int(runner.counts.sum())
    if found != runner.total:
        last = runner.layout.table_pages - 1
        return f"the table in pages 0 to {last} is stale: {found} writes, {runner.total} were made"
    rest = runner.memory.words[: runner.layout.table_pages].reshape(-1)[runner.counts.size :]
    return "the page behind the table is foreign" if rest.any() else None


def _find_foreign(runner: Runner) -> str:
    found = np.empty((_PIECE_PAGES, PAGE_WORDS), np.uint64)
    for first, made in _made(runner):
        pages = found[: len(made)]
        runner.memory.read(first, pages)
        holds = np.any(pages, axis=1).tolist()
        _blank(runner.layout, runner.layout.working_rows(first, pages)[1])
        wrong = np.flatnonzero((pages != made).any(axis=1))
        if wrong.size:
            at = int(wrong[0])
            how = "foreign: not what the guest was filled with" if holds[at] else "lost: all zero"
            return f"page {first + at} is {how}"
    return "the digest of what never changes is not the one that came with the guest"
