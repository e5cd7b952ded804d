"""`pageferry history`: how past migrations of this machine ended."""

import shutil
import sys

import msgspec
import structlog

from pipeline.config.units import format_bytes
from pipeline.records.history import Entry, past
from pipeline.result import ratio, why_not_good
from pipeline.shell.lines import one_line

HEADER = (
    "ended", "name", "role", "status", "total", "downtime", "memory", "ratio", "session", "reason",
)  # fmt: skip
_REASON_COLUMNS = 24
"""What a reason gets where the rest of its line leaves less."""


def listed(last: int | None, *, as_json: bool) -> str:
    """The newest `last` of what is kept, None: all; lines that are broken are counted in a log."""
    entries, broken = past()
    if broken:
        structlog.get_logger().warning("the history has lines that cannot be read", lines=broken)
    shown = entries[-last:] if last else entries
    return _lines(shown) if as_json else table(shown)


def _lines(entries: list[Entry]) -> str:
    return "".join(msgspec.json.encode(entry).decode() + "\n" for entry in entries)


def table(entries: list[Entry]) -> str:
    """A line for each, columns below a header; "-" for what is not known.

    The last column, the reason, is cut to what a terminal has room for; elsewhere it is whole.
    """
    rows = [HEADER, *(tuple(one_line(text or "-") for text in _row(entry)) for entry in entries)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    padded = ("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
    most = _most_columns(before_reason=sum(widths[:-1]) + 2 * len(widths[:-1]))
    return "".join(f"{_cut(line, most)}\n" for line in padded)


def _most_columns(before_reason: int) -> int | None:
    if sys.stdout is None or not sys.stdout.isatty():
        return None
    return max(shutil.get_terminal_size().columns, before_reason + _REASON_COLUMNS)


def _cut(line: str, most: int | None) -> str:
    return line if most is None or len(line) <= most else f"{line[: most - 3]}..."


def _row(entry: Entry) -> tuple[str | None, ...]:
    memory, saved = entry.ram and entry.ram.total, ratio(entry)
    return (
        entry.ended,
        entry.name,
        entry.role,
        entry.status,
        _ms(entry.total_time),
        _ms(entry.downtime),
        format_bytes(memory) if memory else None,
        None if saved is None else f"{saved:.2f}",
        entry.session,
        why_not_good(entry),
    )


def _ms(ms: int | None) -> str | None:
    return None if ms is None else f"{ms} ms"
