"""What is said of those who were not let in: enough to see them, not so much that it harms."""

from pipeline.destination.turned_away import AGAIN_NS, MOST, TurnedAwayWords
from workers.messages import TurnedAway


def test_once_for_each_host_and_reason_and_again_later() -> None:
    """A log that a stranger fills up; one that says nothing of the second stranger."""
    words = TurnedAwayWords()
    first = words.maybe_words(TurnedAway("192.0.2.1:50000", "no key"), 0)
    assert first == "a connection from 192.0.2.1:50000 was turned away: no key"
    assert words.maybe_words(TurnedAway("192.0.2.1:50001", "no key"), AGAIN_NS - 1) is None
    assert words.maybe_words(TurnedAway("192.0.2.1", "its key"), 0)
    assert words.maybe_words(TurnedAway("192.0.2.2:50000", "no key"), 0)
    assert words.maybe_words(TurnedAway("192.0.2.1:50002", "no key"), AGAIN_NS)


def test_what_is_remembered_is_bounded() -> None:
    """Memory that a stranger with many addresses fills up."""
    words = TurnedAwayWords()
    for number in range(3 * MOST):
        words.maybe_words(TurnedAway(f"host-{number}:1", "no key"), 0)
    assert len(words._told_ns) <= MOST
