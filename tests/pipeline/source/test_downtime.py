"""The parts of the downtime add up to the downtime."""

import pytest

from pipeline.source.downtime import DowntimeClock
from tests.pipeline.clocks import Clock


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The time, as the downtime clock sees it."""
    return Clock(monkeypatch, "pipeline.source.downtime")


def test_the_parts_add_up_to_the_whole(clock: Clock) -> None:
    """Time between two parts that nobody counts, or that is counted twice."""
    downtime = DowntimeClock()
    clock.forward(1000)
    downtime.start()
    for number, part in enumerate("abcde", 1):
        clock.forward(number)
        downtime.lap(part)
    clock.forward(10)
    downtime.stop("f", since_ms=4)
    assert downtime.parts == {part: number for number, part in enumerate("abcdef", 1)}
    assert downtime.total_ms == 21


def test_a_guest_that_claims_to_run_for_longer_than_it_was_told(clock: Clock) -> None:
    """A downtime that is less than nothing, because a clock, or the other end, is wrong."""
    downtime = DowntimeClock()
    downtime.start()
    clock.forward(7)
    downtime.lap("load")
    clock.forward(3)
    downtime.stop("start", since_ms=1e9)
    assert (downtime.parts, downtime.total_ms) == ({"load": 7, "start": 0}, 7)


def test_a_lap_may_hold_what_the_other_end_took(clock: Clock) -> None:
    """The load at the destination counted as time on the wire, too."""
    downtime = DowntimeClock()
    downtime.start()
    clock.forward(30)
    downtime.lap("transfer", other="load", other_ms=12.5)
    assert downtime.parts == {"transfer": 17.5, "load": 12.5}


def test_a_part_that_comes_twice_is_added_up(clock: Clock) -> None:
    """The first of two last rounds forgotten, where verification sent pages once more."""
    downtime = DowntimeClock()
    downtime.start()
    for part in ("last-round", "verify", "last-round"):
        clock.forward(5)
        downtime.lap(part)
    assert downtime.parts == {"last-round": 10, "verify": 5}


def test_there_is_no_downtime_before_the_guest_runs_again() -> None:
    """A figure in the result of a migration that never switched over."""
    downtime = DowntimeClock()
    assert (downtime.total_ms, downtime.parts) == (None, {})
