"""The page about one migration: all of what its result knows, whatever it has not reached."""

import re
from pathlib import Path

import msgspec
import pytest

from pipeline.reports.migration import migration_report
from pipeline.result import Decision, DowntimeParts, Ram, Result, RoundResult, Shares, Stages
from protocol.status import Status
from tests.browser import needs_a_browser, opened

MIB = 1 << 20
TAGS = re.compile(r"<svg.*?</svg>|<style.*?</style>|<[^>]+>", re.DOTALL)
ROUNDS = [
    RoundResult(
        round_no=number,
        pages=256 * size,
        zero_pages=7,
        bytes=MIB * size,
        wire_bytes=MIB * size // 3,
        ms=40,
        dirty_pages_rate=256,
        memory_rate=MIB,
        wire_rate=MIB // 3,
        bottleneck="write",
    )
    for number, size in ((1, 64), (2, 8))
]
FULL = Result(
    status=Status.COMPLETED,
    name="<b>mail</b>",
    total_time=1234,
    downtime=21,
    ram=Ram(total=128 * MIB, normal_bytes=72 * MIB, transferred=24 * MIB),
    verified=True,
    guest_alive="destination",
    rounds=ROUNDS,
    downtime_parts=DowntimeParts(last_round=17, verify=4),
    stages=Stages(scan=Shares(busy=0.5), compress=Shares(busy=0.2, starved=0.7, blocked=0.1)),
    bottleneck="scan",
    decisions=[Decision(ms=70, what="downtime limit 100 ms", why="no round was smaller")],
)


def words(page: str) -> str:
    """Of the page, without its drawings and tags."""
    return re.sub(r"\s+", " ", TAGS.sub(" ", page))


def test_all_that_is_known_is_there() -> None:
    """A part of the result that nobody shows; names that are taken for HTML."""
    page = migration_report(FULL)
    said = words(page)
    for fact in ("1,234", "ratio of pages to wire 3 ", "8,388,608", "finding dirty pages limits"):
        assert fact in said
    assert "70 downtime limit 100 ms no round was smaller" in said
    assert page.count("<figure>") == 4
    assert "<b>" not in page
    for unit in ("MiB/s", "% of the time", ">ms<"):
        assert unit in page


@pytest.mark.parametrize("status", [Status.FAILED, Status.CANCELLED, Status.NONE])
def test_what_was_not_reached_is_left_out(status: Status) -> None:
    """A traceback instead of the report of a migration that failed early."""
    page = migration_report(Result(status=status, error_desc="no room: 3 < 4"))
    assert "<figure>" not in page
    assert "Decisions" in page
    assert status is Status.NONE or "no room: 3 &lt; 4" in page


@pytest.mark.parametrize("field", Result.__struct_fields__)
def test_any_field_may_be_missing(field: str) -> None:
    """A field that is None, and that the page takes for known."""
    assert migration_report(msgspec.structs.replace(FULL, **{field: getattr(Result(), field)}))


@needs_a_browser
def test_it_opens_in_a_browser(tmp_path: Path) -> None:
    """A page that asks for something, or complains."""
    page = tmp_path / "page.html"
    page.write_text(migration_report(FULL))
    assert "What limits" in opened(page, tmp_path / "home")
