"""Migrations under faults, in virtual time: what must hold holds, and what is broken is found."""

import pytest

from protocol.status import Status
from tests.simulation.__main__ import main
from tests.simulation.planted import PLANTED
from tests.simulation.seeds import first_broken, play, tally

SEEDS = 600
SEARCHED = 2_000


def test_invariants_hold_whatever_goes_wrong() -> None:
    """A page lost, a guest twice or nowhere, a wait without end; and faults that are not met."""
    counted = tally(play(range(SEEDS)))
    assert [(outcome.seed, outcome.broken) for outcome in counted.broken] == []
    assert counted.faulty > SEEDS // 2
    assert counted.ends[Status.COMPLETED] > SEEDS // 2
    resolved = ("unknown, then started", "unknown, then not-started")
    for end in (Status.FAILED, Status.CANCELLED, "source killed", *resolved):
        assert counted.ends[end], f"no seed ends so: {end}"


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_mistake_is_found(name: str) -> None:
    """An invariant that is blind, or a fault that never meets the moment that it is for."""
    assert first_broken(range(SEARCHED), name) is not None


def test_a_seed_tells_the_same_story_each_time() -> None:
    """A failing seed that cannot be replayed: the real clock, a hash order, a state left over."""
    seeds = range(40)
    first, *others = ([outcome.lines for outcome in play(seeds, told=True)] for _ in range(2))
    assert all(first)
    assert others == [first]


def test_a_failing_seed_prints_its_story_and_how_to_see_it_again(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A seed that fails on another machine and leaves nothing to look at."""
    found = first_broken(range(SEARCHED), "resume-after-intent")
    assert found is not None
    assert main(["--seed", str(found.seed), "--plant", "resume-after-intent"]) == 1
    told = capsys.readouterr().out
    assert "\n".join(found.lines) in told
    assert all(words in told for words in found.broken)
    assert f"--seed {found.seed} --story --plant resume-after-intent" in told


def test_a_seed_without_a_fault_ends_well(capsys: pytest.CaptureFixture[str]) -> None:
    """An exit code that says nothing."""
    assert main(["--seed", "3"]) == 0
    assert "all invariants hold" in capsys.readouterr().out
