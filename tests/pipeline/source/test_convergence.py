"""Hopeless, or merely slow? Migrations of every course, in virtual time, and the verdict."""

from collections.abc import Callable
from dataclasses import dataclass
from math import exp, inf
from random import Random

import pytest

from pipeline.source.convergence import GIB, Convergence, Left, Policy

MIB = 1 << 20
S = 1_000_000_000
LOOK_S = 0.25
LIMIT_S = 0.3
LONGEST_S = 40_000
Rate = Callable[[float], float]


@dataclass
class Course:
    """A guest of so many bytes, a link and a workload; rates in bytes a second, by time in s."""

    memory: float
    link: Rate
    dirty: Rate
    working: float
    """Of it it writes, anywhere with equal chance."""
    least: float = inf
    fell_s: float = 0.0
    """The smallest round so far, and when it had ended, had the link stayed as it was."""

    def run(self, convergence: Convergence) -> tuple[str, float]:
        """ "done" or why not, and after how many seconds."""
        now, size, number, rate = 0.0, self.memory, 1, 0.0
        while True:
            began, left, dirtied = now, size, 0.0
            if number < 3 or size < 0.99 * self.least:
                self.least, self.fell_s = size, now + size / self.link(now)
            while left > 0:
                view = Left(number, int(size), int(began * S), int(left), 0, rate / 4096)
                if (why := convergence.why_hopeless(int(now * S), view)) is not None:
                    return why, now
                step_s = min(LOOK_S, left / self.link(now))
                left -= self.link(now) * step_s
                written = self.dirty(now) * step_s
                dirtied += (self.working - dirtied) * (1 - exp(-written / self.working))
                now += step_s
                assert now < LONGEST_S, "neither ends nor is ended"
            if dirtied <= self.link(now) * LIMIT_S:
                return "done", now
            number, rate, size = number + 1, dirtied / (now - began), dirtied


def steady(rate: float) -> Rate:
    """The same at all times."""
    return lambda _: rate


def from_to(first: float, then: float, at: float) -> Rate:
    """`first`, from `at` on `then`."""
    return lambda now: first if now < at else then


def but(rate: float, other: float, begin: float, end: float) -> Rate:
    """`rate`, but for some time `other`."""
    return lambda now: other if begin <= now < end else rate


def bursts(low: float, high: float, period: float) -> Rate:
    """In turns, beginning with `low`."""
    return lambda now: high if int(now / period) % 2 else low


G, M = float(GIB), float(MIB)
LINK = steady(100 * M)
CONVERGES: dict[str, Course] = {
    "idle": Course(4 * G, LINK, steady(1.0), M),
    "quiet": Course(4 * G, LINK, steady(5 * M), G),
    "half the link": Course(4 * G, LINK, steady(50 * M), 2 * G),
    "three quarters of the link": Course(4 * G, LINK, steady(75 * M), 2 * G),
    "nine tenths of the link": Course(4 * G, LINK, steady(90 * M), 4 * G),
    "small working set, written fast": Course(4 * G, LINK, steady(G), 20 * M),
    "a link of 8 Mbit/s": Course(G, steady(M), steady(0.5 * M), G),
    "a large guest on a slow link": Course(64 * G, steady(50 * M), steady(20 * M), 8 * G),
    "a large guest on a link of 80 Mbit/s": Course(64 * G, steady(10 * M), steady(5 * M), 32 * G),
    "a huge guest on a link of 80 Mbit/s": Course(G * 256, steady(10 * M), steady(M), 8 * G),
    "the link stands still for a minute": Course(
        4 * G, but(100 * M, 0.1, 30, 90), steady(40 * M), G
    ),
    "the link stands still in a late round": Course(
        4 * G, but(100 * M, 0.1, 80, 140), steady(60 * M), 2 * G
    ),
    "busy at first": Course(4 * G, LINK, from_to(300 * M, 30 * M, 60), 2 * G),
    "busy for a minute in between": Course(4 * G, LINK, but(30 * M, 300 * M, 45, 105), 2 * G),
    "bursts, less than the link in all": Course(4 * G, LINK, bursts(5 * M, 120 * M, 5), G),
    "a link that gets better": Course(4 * G, from_to(20 * M, 100 * M, 100), steady(40 * M), G),
    "a link that gets worse": Course(4 * G, from_to(100 * M, 50 * M, 30), steady(30 * M), G),
}
HOPELESS: dict[str, Course] = {
    "twice the link": Course(4 * G, LINK, steady(200 * M), 4 * G),
    "twice the link, small working set": Course(4 * G, LINK, steady(200 * M), 200 * M),
    "ten times the link": Course(64 * G, LINK, steady(G), 32 * G),
    "just above the link": Course(4 * G, LINK, steady(120 * M), 4 * G),
    "a slow link": Course(2 * G, steady(5 * M), steady(50 * M), G),
    "busy from some time on": Course(4 * G, LINK, from_to(60 * M, 300 * M, 50), 2 * G),
    "a link that breaks down": Course(4 * G, from_to(100 * M, 0.1, 20), steady(10 * M), G),
    "a link that gets too slow": Course(4 * G, from_to(100 * M, 20 * M, 60), steady(80 * M), 2 * G),
    "bursts, more than the link in all": Course(4 * G, LINK, bursts(20 * M, 500 * M, 10), 2 * G),
    "all of it, all the time": Course(8 * G, LINK, steady(10 * G), 8 * G),
}
WINDOW_S = 150.0
"""KubeVirt's default."""


@pytest.mark.parametrize("course", CONVERGES.values(), ids=CONVERGES)
def test_what_is_merely_slow_is_let_go_on(course: Course) -> None:
    """A migration ended though it was about to come to its end."""
    convergence = Convergence(Policy(int(course.memory), progress_s=WINDOW_S), 0)
    assert course.run(convergence)[0] == "done"
    assert convergence.decisions == []


@pytest.mark.parametrize("course", HOPELESS.values(), ids=HOPELESS)
def test_what_is_hopeless_is_ended_within_the_window(course: Course) -> None:
    """A migration that somebody has to watch: rounds that get no smaller, for longer than that."""
    convergence = Convergence(Policy(int(course.memory), progress_s=WINDOW_S), 0)
    why, ended_s = course.run(convergence)
    assert "no progress in 150 s" in why
    assert ended_s <= course.fell_s + 1.3 * WINDOW_S, "rounds that are a little smaller add some"
    (decision,) = convergence.decisions
    assert (decision.what, decision.why) == ("cancel", why)
    assert decision.ms == pytest.approx(ended_s * 1000, abs=1)


@pytest.mark.parametrize("seed", range(10))
def test_rounds_that_go_up_and_down_are_no_progress(seed: int) -> None:
    """Half of all rounds are smaller than the one before them."""
    random = Random(seed)
    noisy = Course(16 * M, steady(24 * M), lambda _: random.uniform(40, 80) * M, 12 * M)
    convergence = Convergence(Policy(int(16 * M), progress_s=10), 0)
    why, ended_s = noisy.run(convergence)
    assert "no progress in 10 s" in why
    assert ended_s < 60


def test_a_time_for_each_gib() -> None:
    """A large guest ended by the time of a small one; a small one that has none at all."""
    course = HOPELESS["just above the link"]
    convergence = Convergence(Policy(int(course.memory), completion_s=20), 0)
    why, ended_s = course.run(convergence)
    assert ended_s == pytest.approx(80, abs=1)
    assert why.startswith("not converging: not done in 80 s (20 s for each of 4.0 GiB), ")
    small = Course(64 * M, steady(M), steady(10 * M), 64 * M)
    assert small.run(Convergence(Policy(int(64 * M), completion_s=70), 0))[1] == pytest.approx(
        70, abs=1
    )


def test_without_limits_nothing_is_decided() -> None:
    """A policy that nobody asked for."""
    convergence = Convergence(Policy(4 * GIB), 0)
    with pytest.raises(AssertionError, match="neither ends nor is ended"):
        HOPELESS["a slow link"].run(convergence)
    assert convergence.decisions == []


def test_a_downtime_that_is_accepted_is_decided_once() -> None:
    """A line of log at every look from then on."""
    convergence = Convergence(Policy(4 * GIB, progress_s=150, remedy="switch-over"), 0)
    why, ended_s = HOPELESS["twice the link"].run(convergence)
    assert convergence.accepts_downtime
    later = Left(9, GIB, 0, GIB, GIB, 1e6)
    assert convergence.why_hopeless(int((ended_s + 500) * S), later) is None
    assert [(one.what, one.why) for one in convergence.decisions] == [("switch-over", why)]


def test_the_downtime_limit_goes_up_in_steps() -> None:
    """The most allowed from the beginning, or never; a step that nobody is told of."""
    policy = Policy(2 * GIB, start_ms=50, steps=5, delay_s=10)
    convergence = Convergence(policy, 0)
    limits = [convergence.downtime_limit_ms(int(s * S), 300) for s in (0, 19, 20, 41, 99, 100, 999)]
    assert limits == [50, 50, 100, 150, 250, 300, 300]
    assert [one.why for one in convergence.decisions] == [
        "100 ms, step 1 of 5 to 300 ms",
        "150 ms, step 2 of 5 to 300 ms",
        "250 ms, step 4 of 5 to 300 ms",
        "300 ms, step 5 of 5 to 300 ms",
    ]
    assert Convergence(policy, 0).downtime_limit_ms(0, 40) == 40, "what is set is the most"
    assert Convergence(Policy(GIB), 0).downtime_limit_ms(0, 300) == 300
