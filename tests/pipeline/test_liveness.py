"""Heartbeats owed, and the other end counted as gone: not early, not late, by whose silence."""

import pytest

from pipeline.liveness import HEARTBEAT_NS, SILENCE_SECONDS, Liveness, Repetition

SECOND = 1_000_000_000
START = 500 * SECOND


def lost_at(alive: Liveness, second: float, patience_s: float = SILENCE_SECONDS) -> bool:
    """Whether the other end is lost so long after START, to one that has looked all the while."""
    return [
        alive.is_lost(START + int(tenth * SECOND / 10), patience_s)
        for tenth in range(int(second * 10) + 1)
    ][-1]


def test_a_heartbeat_is_owed_after_a_second_of_our_own_silence() -> None:
    """An end that says nothing while it works, and is given up."""
    alive = Liveness(START)
    assert not alive.owes_heartbeat(START + HEARTBEAT_NS - 1)
    assert alive.owes_heartbeat(START + SECOND)
    alive.spoke(START + SECOND)
    assert not alive.owes_heartbeat(START + 2 * SECOND - 1)
    assert alive.owes_heartbeat(START + 2 * SECOND)


def test_what_is_heard_is_not_what_was_said() -> None:
    """Two ends that each keep quiet because the other one speaks."""
    alive = Liveness(START)
    alive.heard(START + SECOND)
    assert alive.owes_heartbeat(START + SECOND)
    alive.spoke(START + 5 * SECOND)
    assert lost_at(alive, 6)


def test_five_seconds_of_silence_are_the_end() -> None:
    """A peer that is lost and waited for, or there and given up."""
    alive = Liveness(START)
    assert SILENCE_SECONDS == 5
    assert not lost_at(alive, 4.9)
    assert not alive.is_lost(START + 5 * SECOND - 1)
    assert alive.is_lost(START + 5 * SECOND)
    alive.heard(START + 4 * SECOND)
    assert not lost_at(alive, 8)
    assert lost_at(alive, 9)


@pytest.mark.parametrize("patience_s", [0.5, 30])
def test_patience_can_be_another(patience_s: float) -> None:
    """From ready on it is the commit timeout that counts."""
    alive = Liveness(START)
    assert not lost_at(alive, patience_s - 0.1, patience_s)
    assert alive.is_lost(START + int(patience_s * SECOND), patience_s)


def test_what_is_not_acknowledged_is_repeated() -> None:
    """A message that is lost for good, or a link full of copies."""
    repetition = Repetition(START)
    due = [repetition.is_due(START + tenth * SECOND // 10, 4) for tenth in range(61)]
    assert [tenth for tenth, one in enumerate(due) if one] == [20, 40, 60]


def test_progress_is_no_reason_to_repeat() -> None:
    """A busy link that sends everything twice."""
    repetition = Repetition(START)
    assert not any(repetition.is_due(START + second * SECOND, second) for second in range(20))
    assert not any(repetition.is_due(START + second * SECOND, None) for second in range(20, 40))
