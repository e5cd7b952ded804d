"""The source's counters and the figures made of them."""

import pytest
from msgspec import structs

from pipeline.source.statistics import PACE_JOBS, Busy, SourceStatistics
from protocol.control import Applied
from tests.pipeline.clocks import MS, Clock
from workers.messages import Scanned, Sent

START = 10**15


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The time of the rounds."""
    return Clock(monkeypatch, "pipeline.source.statistics")


def counted() -> SourceStatistics:
    """Counters whose last scan was at `START`."""
    return SourceStatistics(total_pages=1000, _scanned_ns=START)


def sent(zero: int, data: int, payload: int, *, compressed: bool = True) -> Sent:
    """A frame of these pages, with 100 bytes of head; hashing took 3, compressing 4, waiting 5."""
    return Sent(1, 0, zero, data, payload + 100, payload, compressed, 3, 4, 5)


def test_frames_are_counted_in_all_and_in_their_round(clock: Clock) -> None:
    """A round that shows what the whole migration sent, or what the round before did."""
    figures = counted()
    figures.start_round(10)
    figures.add_sent(sent(2, 3, 5000), 8)
    clock.forward(30)
    figures.end_round()
    figures.start_round(4)
    figures.add_sent(sent(0, 2, 8192, compressed=False), 2)
    assert (figures.zero_pages, figures.data_pages, figures.skipped_pages) == (2, 5, 3)
    assert figures.wire_bytes == 5100 + 8292
    assert (figures.compressed_pages, figures.compressed_bytes) == (3, 5000)
    assert (figures.hash_ns, figures.compress_ns, figures.send_ns) == (6, 8, 10)
    figures.enlarge_round(3)
    first, second = figures.rounds
    assert (first.round_no, first.pages, first.zero_pages, first.data_pages) == (1, 10, 2, 3)
    assert (first.wire_bytes, first.ended_ns - first.began_ns) == (5100, 30 * MS)
    assert (second.pages, second.data_pages, second.wire_bytes) == (7, 2, 8292)
    assert second.ended_ns == 0
    figures.end_round(workers=3)
    assert first.busy == Busy(compress=7, send=5)
    assert (second.busy, second.workers) == (Busy(compress=7, send=5), 3)


def test_the_ratio_is_guest_bytes_to_wire_bytes() -> None:
    """A ratio out of payloads alone, or a division by nothing."""
    figures = counted()
    assert figures.ratio is None
    figures.start_round(3)
    figures.add_sent(sent(1, 0, 0), 1)
    assert figures.ratio is None
    figures.add_sent(sent(0, 2, 3896), 2)
    assert figures.ratio == pytest.approx(2.0)


def test_the_first_scan_gives_a_rate_at_once() -> None:
    """No dirty rate in a migration of two short rounds."""
    figures = counted()
    figures.count_scan(50, START + 100 * MS)
    assert figures.dirty_pages_rate == 500
    assert figures.dirty_sync_count == 1


def test_the_rate_is_made_anew_at_most_once_a_second() -> None:
    """A rate out of the few pages of a short round, up and down with every scan."""
    figures = counted()
    figures.count_scan(50, START + 100 * MS)
    figures.count_scan(900, START + 200 * MS)
    figures.count_scan(90, START + 1099 * MS)
    assert figures.dirty_pages_rate == 500
    figures.count_scan(10, START + 1100 * MS)
    assert figures.dirty_pages_rate == 1000, "all scans of the second count"
    assert figures.dirty_sync_count == 4
    figures.count_scan(500, START + 2100 * MS)
    assert figures.dirty_pages_rate == 500


def test_a_round_shows_the_rate_that_was_known_when_it_began(clock: Clock) -> None:
    """All rounds with the last one's rate."""
    assert clock
    figures = counted()
    figures.start_round(1)
    figures.count_scan(50, START + 100 * MS)
    figures.start_round(1)
    assert [each.dirty_pages_rate for each in figures.rounds] == [0, 500]


def test_the_pace_of_hashing_is_that_of_the_newest_scans() -> None:
    """A downtime estimated with the pace of an idle machine, after it has got busy."""
    figures = counted()
    assert figures.hash_ns_a_page == 0
    figures.add_scanned(Scanned(1, b"", 4_000), 10)
    figures.add_scanned(Scanned(2, b"", 1_000), 40)
    assert figures.hash_ns_a_page == 100
    assert figures.scan_ns == 5_000
    for _ in range(PACE_JOBS):
        figures.add_scanned(Scanned(3, b"", 700), 1)
    assert figures.hash_ns_a_page == 700
    figures.add_scanned(Scanned(4, b"", 0), 0)
    assert figures.hash_ns_a_page == pytest.approx(700)


def test_what_the_destination_tells_is_taken_over_and_pages_add_up() -> None:
    """Busy times added up that are sums already; pages taken over that are not."""
    figures = counted()
    figures.add_applied(Applied(seq=1, decompress_ns=10, write_ns=20, uncompared=30), 5)
    figures.add_applied(Applied(seq=2, decompress_ns=11, write_ns=22, uncompared=7), 6)
    assert (figures.decompress_ns, figures.write_ns) == (11, 22)
    assert (figures.uncompared_pages, figures.applied_pages) == (7, 11)


def test_deltas_have_the_rates_of_the_last_round_that_had_some() -> None:
    """Rates that stay at nothing in a short migration, or that count pages nobody looked up."""
    figures = counted()
    frame = sent(0, 6, 5000)
    counts = [(0, 0, 0, 0), (2, 128, 8, 6), (4, 1024, 5, 1), (0, 0, 0, 0)]
    rates = []
    for pages, size, looked_up, missed in counts:
        figures.start_round(9)
        found = {"delta_pages": pages, "delta_bytes": size, "looked_up": looked_up}
        figures.add_sent(structs.replace(frame, **found, missed=missed), 9)
        figures.end_round()
        figures.end_round()
        rates.append((figures.deltas.miss_rate, figures.deltas.encoding_rate))
    assert rates == [(0, 0), (6 / 8, 64), (1 / 5, 16), (1 / 5, 16)]
    assert (figures.deltas.pages, figures.deltas.bytes, figures.deltas.missed) == (6, 1152, 7)
    assert figures.skipped_pages == 4 * 3 - 6
    assert figures.uncompressed_bytes == 4 * 6 * 4096 + 1152
