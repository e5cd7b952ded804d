"""Frames that were sent and never arrive: noticed, and nothing else is taken for that."""

from pipeline.source.overdue import AGAIN_NS, FIRST_NS, GRACE_NS, Overdue

OUT = 1 << 20
START = 10**15
FAST = 1.0e9
STEP_NS = 100_000_000


def progressing(gap_ns: int = STEP_NS, times: int = 20) -> tuple[Overdue, int]:
    """After progress at this pace, and when the last of it was."""
    overdue, now_ns = Overdue(START), START
    for seq in range(1, times + 1):
        now_ns += gap_ns
        assert not overdue.is_overdue(now_ns, seq, OUT, FAST)
    return overdue, now_ns


def test_no_progress_is_overdue_soon() -> None:
    """A data connection that was cut: a migration that waits for ever."""
    overdue, since_ns = progressing()
    patience_ns = GRACE_NS + 3 * STEP_NS
    assert not overdue.is_overdue(since_ns + patience_ns, 20, OUT, FAST)
    assert overdue.is_overdue(since_ns + patience_ns + 10**6 + 1, 20, OUT, FAST)


def test_after_a_yes_the_grace_begins_anew_and_is_longer() -> None:
    """A redo of the same frame at every look, or so soon that a worker which hangs costs more
    of them than there are: it is noticed after 4 s."""
    overdue, since_ns = progressing()
    assert overdue.is_overdue(since_ns + 2 * GRACE_NS, 20, OUT, FAST)
    assert not overdue.is_overdue(since_ns + 2 * GRACE_NS + AGAIN_NS, 20, OUT, FAST)
    assert overdue.is_overdue(since_ns + 3 * GRACE_NS + AGAIN_NS, 20, OUT, FAST)


def test_after_progress_the_grace_is_the_short_one_again() -> None:
    """One lost connection, and every later one is noticed late."""
    overdue, since_ns = progressing()
    assert overdue.is_overdue(since_ns + 2 * GRACE_NS, 20, OUT, FAST)
    assert not overdue.is_overdue(since_ns + 2 * GRACE_NS + STEP_NS, 21, OUT, FAST)
    assert overdue.is_overdue(since_ns + 4 * GRACE_NS, 21, OUT, FAST)


def test_before_the_first_progress_there_is_more_patience() -> None:
    """The first frame on a thin link, sent again and again and never whole."""
    overdue, patience_ns = Overdue(START), FIRST_NS + 16 * GRACE_NS
    assert not overdue.is_overdue(START + patience_ns, 0, OUT, 0.0)
    assert overdue.is_overdue(START + patience_ns + 1000, 0, OUT, 0.0)


def test_nothing_out_is_never_overdue() -> None:
    """A long scan, or a slow comparison at the destination, taken for a lost connection."""
    overdue, since_ns = progressing()
    assert not overdue.is_overdue(since_ns + 100 * GRACE_NS, 20, 0, FAST)
    assert not overdue.is_overdue(since_ns + 101 * GRACE_NS, 20, OUT, FAST)


def test_a_slow_link_gets_the_time_that_it_needs() -> None:
    """A frame on a thin link taken for a lost one."""
    overdue, since_ns = progressing()
    assert not overdue.is_overdue(since_ns + 5 * GRACE_NS, 20, OUT, OUT / 5_000)
    overdue, since_ns = progressing(gap_ns=2 * GRACE_NS)
    assert not overdue.is_overdue(since_ns + 6 * GRACE_NS, 20, OUT, FAST)
    assert overdue.is_overdue(since_ns + 8 * GRACE_NS, 20, OUT, FAST)


def test_a_bandwidth_that_was_measured_over_a_loss_is_not_believed() -> None:
    """Minutes of waiting for the second lost frame, since the first one made the link look slow."""
    overdue, since_ns = progressing()
    assert not overdue.is_overdue(since_ns + 15 * GRACE_NS, 20, OUT, 0.5)
    assert overdue.is_overdue(since_ns + 20 * GRACE_NS, 20, OUT, 0.5)
