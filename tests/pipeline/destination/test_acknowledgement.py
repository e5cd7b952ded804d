"""Acknowledgements: few enough on a busy link, none held back on an idle one."""

from pipeline.destination.acknowledgement import EVERY_FRAMES, LATE_NS, Acknowledgement

START = 10**15


def told(applied: int) -> Acknowledgement:
    acknowledgement = Acknowledgement()
    acknowledgement.told(applied, START)
    return acknowledgement


def test_every_few_frames() -> None:
    """A control message for each frame, or a window that fills before one is sent."""
    acknowledgement = told(10)
    due = [acknowledgement.is_due(10 + new, START, idle=False) for new in range(EVERY_FRAMES + 1)]
    assert due == [False] * EVERY_FRAMES + [True]


def test_the_last_frames_of_a_round_do_not_wait() -> None:
    """A fence that never falls: fewer frames left than make an acknowledgement."""
    acknowledgement = told(10)
    assert acknowledgement.is_due(11, START, idle=True)
    assert not acknowledgement.is_due(10, START, idle=True)


def test_a_busy_receiver_acknowledges_in_the_end() -> None:
    """A source that waits while the receiver reads back."""
    acknowledgement = told(10)
    assert not acknowledgement.is_due(11, START + LATE_NS, idle=False)
    assert acknowledgement.is_due(11, START + LATE_NS + 1, idle=False)


def test_pending_until_told() -> None:
    """A receiver that naps for long while something is to be acknowledged."""
    acknowledgement = told(10)
    assert acknowledgement.is_pending(11)
    acknowledgement.told(11, START)
    assert not acknowledgement.is_pending(11)
