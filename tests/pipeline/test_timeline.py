"""When a migration reached each status."""

import pytest

from pipeline.timeline import Timeline
from protocol.status import Status, StatusMachine
from tests.pipeline.clocks import Clock

S = Status


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The time, as the timeline sees it."""
    return Clock(monkeypatch, "pipeline.timeline")


def walk(status: StatusMachine, clock: Clock, *steps: Status) -> None:
    """Take each step 10 ms after the one before."""
    for step in steps:
        clock.forward(10)
        assert status.change(status.status, step)


def test_total_time_runs_from_the_command_to_the_end(clock: Clock) -> None:
    """A total that goes on to grow after the end, or begins with the process."""
    status = StatusMachine()
    timeline = Timeline(status)
    assert timeline.elapsed_ms() == 0
    clock.forward(1000)
    assert timeline.elapsed_ms() == 0
    walk(status, clock, S.SETUP, S.ACTIVE)
    clock.forward(5)
    assert timeline.elapsed_ms() == 15
    walk(status, clock, S.DEVICE, S.COMPLETED)
    clock.forward(1000)
    assert timeline.elapsed_ms() == 35


@pytest.mark.parametrize("end", [[S.FAILED], [S.CANCELLING, S.CANCELLED]])
def test_every_end_is_an_end(clock: Clock, end: list[Status]) -> None:
    """The total time of a migration that failed is the time until somebody asks."""
    status = StatusMachine()
    timeline = Timeline(status)
    walk(status, clock, S.SETUP, S.ACTIVE, *end)
    reached = timeline.elapsed_ms()
    clock.forward(1000)
    assert timeline.elapsed_ms() == reached == 10 + 10 * len(end)


def test_setup_time_is_known_once_it_is_over(clock: Clock) -> None:
    """A setup time for a migration that never got through it."""
    status = StatusMachine()
    timeline = Timeline(status)
    assert timeline.setup_ms() is None
    walk(status, clock, S.SETUP)
    assert timeline.setup_ms() is None
    walk(status, clock, S.ACTIVE)
    clock.forward(500)
    assert timeline.setup_ms() == 10


def test_a_setup_that_failed_has_no_setup_time(clock: Clock) -> None:
    """A figure that was never reached and is not null."""
    status = StatusMachine()
    timeline = Timeline(status)
    walk(status, clock, S.SETUP, S.FAILED)
    assert timeline.setup_ms() is None
    assert timeline.elapsed_ms() == 10
