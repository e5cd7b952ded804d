"""When a guest is slowed down, and by how much, in virtual time."""

from pipeline.source.auto_converge import AutoConverge, Moved

MIB = 1 << 20
S = 1_000_000_000


def steps(*periods: tuple[int, int], each_ns: int = S) -> list[int]:
    """The percentages after periods in which so many MiB were dirtied, and sent."""
    auto, moved, found = AutoConverge(0), Moved(), []
    for number, (dirtied, sent) in enumerate(periods, 1):
        moved = Moved(moved.dirtied + dirtied * MIB, moved.sent + sent * MIB)
        auto.look(number * each_ns, moved)
        found.append(auto.percent)
    return found


def test_the_second_period_counts() -> None:
    """A guest that is slowed down for one busy moment, or never."""
    assert steps((60, 100), (60, 100), (60, 100)) == [0, 20, 30]
    assert steps((60, 100), (10, 100), (60, 100)) == [0, 0, 20]


def test_it_climbs_to_99_and_no_further() -> None:
    """A guest that stands still for good, or a percentage that QEMU does not know."""
    climbed = steps(*[(100, 10)] * 14)
    assert climbed == [0, 20, 30, 40, 50, 60, 70, 80, 90, 99, 99, 99, 99, 99]


def test_half_of_what_is_sent_is_not_too_much() -> None:
    """A guest that is slowed down though its rounds shrink."""
    assert steps(*[(50, 100)] * 5) == [0] * 5


def test_a_period_is_a_second_at_least() -> None:
    """Short rounds, that drive a guest to a standstill within a moment."""
    assert steps(*[(60, 100)] * 8, each_ns=S // 4) == [0, 0, 0, 0, 0, 0, 0, 20]


def test_each_step_is_said_once() -> None:
    """A decision that is listed for ever; a guest that is not told again what it may have lost."""
    auto, told = AutoConverge(0), []
    for n in range(1, 16):
        assert auto.look(n * S, Moved(n * 60 * MIB, n * 100 * MIB))
        told.append(auto.why)
    assert [bool(why) for why in told] == [False] + [True] * 9 + [False] * 5
    assert told[9] == "99 %: 60 MiB dirtied, 100 sent in 1.0 s"
    assert auto.percent == 99


def test_one_that_is_late_waits_for_one_period_only() -> None:
    """A timeout that is over, and two more periods."""
    auto = AutoConverge(0)
    auto.hurry(5 * S, Moved(500 * MIB, 500 * MIB))
    assert not auto.look(5 * S + 1, Moved(500 * MIB, 500 * MIB))
    assert auto.look(6 * S, Moved(560 * MIB, 600 * MIB))
    assert auto.percent == 20
