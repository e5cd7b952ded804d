"""Which setting is best, from rows that a test makes up."""

from collections.abc import Mapping, Sequence

import pytest

from pipeline.laboratory.experiment import Settings
from pipeline.laboratory.measures import Constraint, Objective, contradiction
from pipeline.laboratory.standings import Standings
from pipeline.laboratory.trials import Places, Row, Trial, in_rounds

TIME, DOWN, RATE = Objective("total-time"), Objective("downtime"), Objective("memory-rate")


def rows(table: Mapping[str, Sequence[tuple[float, float]]], link: int = 0) -> list[Row]:
    """For each name (total-time, downtime) of its repetitions."""
    return [
        Row(
            trial=Trial({"name": name}, 0, link, number),
            measures={"total-time": time, "downtime": down, "memory-rate": 1e6 / time},
        )
        for name, figures in table.items()
        for number, (time, down) in enumerate(figures)
    ]


def names(standings: list) -> list[str]:  # type: ignore[type-arg]
    """Of settings."""
    return [one.settings["name"] for one in standings]


def test_the_best_and_its_ties() -> None:
    """A difference within the noise, taken for one; the fastest single run, taken for the best."""
    table = {
        "lucky": [(50, 1), (200, 1), (210, 1)],
        "good": [(100, 1), (101, 1), (102, 1)],
        "as good": [(101, 1), (102, 1), (103, 1)],
        "slow": [(300, 1), (301, 1), (306, 1)],
    }
    standings = Standings(rows(table), [TIME])
    assert standings.noise(TIME) == pytest.approx(0.02, abs=0.001)
    assert names(standings.best()) == ["good", "as good"]


def test_a_large_rate_is_a_good_one() -> None:
    """The slowest setting, recommended."""
    table = {"fast": [(100, 1)], "slow": [(300, 1)]}
    assert names(Standings(rows(table), [RATE]).best()) == ["fast"]


def test_what_fails_or_breaks_a_constraint_does_not_count() -> None:
    """A setting that is fast because it has failed."""
    table = {"fast": [(100, 900)], "slow": [(300, 90)]}
    failed = Row(trial=Trial({"name": "broken"}, 0, 0, 0), error="no")
    standings = Standings([*rows(table), failed], [TIME], [Constraint("downtime <= 300")])
    assert names(standings.best()) == ["slow"]
    assert [standings.keeps(one) for one in standings.all] == [False, True, False]


def test_it_has_to_do_well_everywhere() -> None:
    """The best over one link, which is the worst over the other."""
    here = {"a": [(100, 1)], "b": [(110, 1)], "c": [(300, 1)]}
    there = {"a": [(900, 1)], "b": [(120, 1)], "c": [(100, 1)]}
    standings = Standings([*rows(here), *rows(there, 1)], [TIME])
    assert names(standings.best())[0] == "b"


def test_what_nothing_else_beats() -> None:
    """A setting on the front that another one beats in all."""
    table = {"fast": [(100, 90)], "short": [(300, 9)], "both": [(200, 50)], "neither": [(250, 60)]}
    assert set(names(Standings(rows(table), [TIME, DOWN]).pareto())) == {"fast", "short", "both"}


def test_constraints_that_nothing_keeps() -> None:
    """A night of trials for nothing."""
    keeps = [Constraint("downtime >= 100"), Constraint("downtime <= 100")]
    assert contradiction(tuple(keeps)) is None
    assert contradiction((Constraint("downtime > 100"), keeps[1])) is not None
    assert contradiction((Constraint("cpu-seconds > 100"), keeps[1])) is None


def test_repetitions_are_interleaved() -> None:
    """All repetitions of a setting in the one minute in which the machine was busy."""
    points: list[Settings] = [{"n": number} for number in range(6)]
    planned = in_rounds(points, Places(2, 2), 3, 1, 5)
    assert [trial.repetition for trial in planned] == [-1] * 4 + [0] * 24 + [1] * 24 + [2] * 24
    numbered = [(trial.settings["n"], trial.guest, trial.link) for trial in planned]
    orders = [numbered[4 + n * 24 : 28 + n * 24] for n in range(3)]
    assert {len(set(order)) for order in orders} == {24}
    assert orders[0] != orders[1] != orders[2]
    assert planned == in_rounds(points, Places(2, 2), 3, 1, 5)
