"""Frames that were sent and never arrive: noticed, and nothing else is taken for that."""

from pipeline.source.overdue import GRACE_NS, Overdue

OUT = 1 << 20
START = 10**15


def test_no_progress_is_overdue_after_the_grace() -> None:
    """A data connection that was cut: a migration that waits for ever."""
    overdue = Overdue(START)
    assert not overdue.is_overdue(START + GRACE_NS, 0, OUT, 0.0)
    assert overdue.is_overdue(START + GRACE_NS + 1, 0, OUT, 0.0)


def test_progress_starts_the_grace_anew() -> None:
    """A long migration that is given up because it is long."""
    overdue = Overdue(START)
    for seq in range(1, 10):
        assert not overdue.is_overdue(START + seq * GRACE_NS, seq, OUT, 0.0)
    assert overdue.is_overdue(START + 10 * GRACE_NS + 1, 9, OUT, 0.0)


def test_nothing_out_is_never_overdue() -> None:
    """A long scan, or a slow comparison at the destination, taken for a lost connection."""
    overdue = Overdue(START)
    assert not overdue.is_overdue(START + 100 * GRACE_NS, 7, 0, 1.0)
    assert not overdue.is_overdue(START + 101 * GRACE_NS, 7, OUT, 1.0)


def test_a_slow_link_gets_the_time_that_it_needs() -> None:
    """A frame on a thin link taken for a lost one."""
    overdue, bandwidth = Overdue(START), OUT / 5_000
    assert not overdue.is_overdue(START + GRACE_NS + 4_900_000_000, 0, OUT, bandwidth)
    assert overdue.is_overdue(START + GRACE_NS + 5_100_000_000, 0, OUT, bandwidth)
