"""The page about an experiment: what is best, by how much, what each setting does, and why."""

from collections.abc import Sequence
from itertools import combinations
from statistics import median
from typing import Any

from pipeline.laboratory.experiment import Experiment
from pipeline.laboratory.measures import UNITS, Objective
from pipeline.laboratory.standings import Place, Standing, Standings
from pipeline.laboratory.tables import environment
from pipeline.laboratory.trials import Row
from pipeline.reports import charts
from pipeline.reports.advice import advice
from pipeline.reports.page import Page

PAIRS = 6
"""Of settings that are drawn against each other; more would be read by nobody."""
LISTED = 30
"""Settings in the table."""
MIB = 1 << 20
SCALES = {"bytes": (MIB, "MiB"), "bytes/s": (MIB, "MiB/s")}


def report(experiment: Experiment, rows: list[Row], standings: Standings, about: str) -> str:
    """All of it, as HTML; `about` is what is said first."""
    page = Page(f"pageferry tune: {experiment.name}")
    page.words("; ".join(about.splitlines()) + ".")
    _best(page, experiment, standings)
    for place in standings.places:
        _effects(page, experiment, standings, place)
    if len(experiment.objectives) > 1:
        _front(page, experiment, standings)
    _limits(page, standings)
    _setup(page, experiment, rows)
    return page.html


def _scaled(measure: str, figure: float) -> float:
    return figure / SCALES.get(UNITS[measure], (1, ""))[0]


def _named(measure: str) -> str:
    unit = UNITS[measure]
    return f"{measure} ({SCALES.get(unit, (1, unit))[1]})"


def _where(experiment: Experiment, place: Place) -> str:
    return f"guest {place[0]}, {experiment.links[place[1]].name}"


def _best(page: Page, experiment: Experiment, standings: Standings) -> None:
    """The best settings, and how far apart repetitions lie."""
    objective = experiment.objectives[0]
    page.heading("The best settings")
    page.words(_repetitions(standings, objective))
    ranked = standings.ranked(objective)
    names = list(experiment.space)
    places = standings.places
    head = [
        *names,
        *(f"{_named(objective)}, {_where(experiment, one)}" for one in places),
        "spread",
    ]
    page.table(head, [_ranked_row(one, names, places, objective) for _, one in ranked[:LISTED]], 0)
    left = len(standings.all) - len(ranked)
    if left:
        page.words(f"{left} settings failed, or do not keep a constraint, and are not listed.")


def _repetitions(standings: Standings, objective: Objective) -> str:
    """How many there are, which may be fewer than were asked for, and what they tell."""
    counts = [one.repetitions(place) for one in standings.all for place in standings.places]
    made = f"{min(counts)} to {max(counts)}" if min(counts) < max(counts) else f"{max(counts)}"
    if max(counts) < 2:
        return "Of one repetition each: how far others would lie from it is not known."
    return (
        f"Medians of {made} repetitions, in an order by chance; those of one setting lie"
        f" {standings.noise(objective):.1%} apart: smaller differences are ties."
    )


def _ranked_row(
    standing: Standing, names: Sequence[str], places: Sequence[Place], objective: Objective
) -> list[object]:
    figures = [_scaled(objective, standing.medians(place)[objective]) for place in places]
    spread = max(standing.spread(place, objective) for place in places)
    is_known = any(standing.repetitions(place) > 1 for place in places)
    shown = f"{spread:.1%}" if is_known else "not known"
    return [*(str(standing.settings[name]) for name in names), *figures, shown]


def _effects(page: Page, experiment: Experiment, standings: Standings, place: Place) -> None:
    """Of each setting by itself, and of pairs."""
    objective = experiment.objectives[0]
    page.heading(f"What each setting does: {_where(experiment, place)}")
    done = [one for one in standings.all if one.medians(place)]
    for name in experiment.space:
        points = [
            (value, _middle([one for one in done if one.settings[name] == value], place, objective))
            for value in _values(done, name)
        ]
        if len(points) > 1:
            page.chart(
                charts.lines({name: points}, name, _named(objective), bars=_are_names(points)),
                f"Median of {objective} over all settings with that value of {name}.",
            )
    for one, other in list(combinations(experiment.space, 2))[:PAIRS]:
        _pair(page, done, place, objective, (one, other))


def _are_names(points: Sequence[tuple[object, float]]) -> bool:
    return any(isinstance(value, str | bool) for value, _ in points)


def _values(standings: Sequence[Standing], name: str) -> list[Any]:
    found = dict.fromkeys(one.settings[name] for one in standings)
    plain = all(isinstance(value, int | float) for value in found)
    return sorted(found) if plain else list(found)


def _middle(standings: Sequence[Standing], place: Place, objective: Objective) -> float:
    return _scaled(objective, median(one.medians(place)[objective] for one in standings))


def _pair(
    page: Page,
    done: Sequence[Standing],
    place: Place,
    objective: Objective,
    names: tuple[str, str],
) -> None:
    columns, rows = (_values(done, name) for name in names)
    if len(columns) < 2 or len(rows) < 2:
        return
    table = []
    for row in rows:
        cells = [
            [
                one
                for one in done
                if (one.settings[names[0]], one.settings[names[1]]) == (column, row)
            ]
            for column in columns
        ]
        table.append([_middle(cell, place, objective) if cell else None for cell in cells])
    page.chart(
        charts.heat(table, columns, rows, (*names, _named(objective))),
        f"Median of {objective} for each pair of {names[0]} and {names[1]}.",
    )


def _front(page: Page, experiment: Experiment, standings: Standings) -> None:
    """Which settings nothing else beats in both of the first two objectives."""
    across, up = experiment.objectives[:2]
    page.heading("No setting is better in all")
    front = {id(one) for one in standings.pareto()}
    for place in standings.places:
        groups: dict[str, list[tuple[float, float]]] = {
            "nothing is better in all": [],
            "others": [],
        }
        for one in standings.all:
            medians = one.medians(place)
            if medians:
                group = "nothing is better in all" if id(one) in front else "others"
                point = (_scaled(across, medians[across]), _scaled(up, medians[up]))
                groups[group].append(point)
        page.chart(
            charts.scatter(groups, _named(across), _named(up)),
            f"Each point is a setting, {_where(experiment, place)}.",
        )


def _limits(page: Page, standings: Standings) -> None:
    """Rounds of the best one, and what limited all."""
    best = standings.best()
    rows = [row for rows in (best[0].rows.values() if best else ()) for row in rows if row.measures]
    page.heading("What limits")
    if rows:
        page.words(f"With the best setting {advice(rows[0].result)}.")
        rounds = rows[0].result["rounds"]
        points = {
            "memory": [(one["round"], one["bytes"] / MIB) for one in rounds],
            "on the wire": [(one["round"], one["wire-bytes"] / MIB) for one in rounds],
        }
        page.chart(charts.lines(points, "round", "MiB"), "The rounds of its first repetition.")
    counted: dict[str, int] = {}
    for standing in standings.all:
        for row in (row for rows in standing.rows.values() for row in rows if row.measures):
            name = str(row.result.get("bottleneck"))
            counted[name] = counted.get(name, 0) + 1
    page.table(
        ("busiest stage", "trials", "what it may mean"),
        [(name, count, advice({"bottleneck": name})) for name, count in sorted(counted.items())],
    )


def _setup(page: Page, experiment: Experiment, rows: list[Row]) -> None:
    page.heading("How it was made")
    shaped = sorted({row.shaped_by for row in rows if row.shaped_by})
    failed = [row for row in rows if not row.measures]
    page.words(
        f"{len(rows)} trials, {len(failed)} of them failed.",
        f"Links were made slow by: {', '.join(shaped) or 'nothing'}.",
        f"Constraints: {', '.join(experiment.constraints) or 'none'}.",
    )
    page.table(("", ""), [(name, value) for name, value in environment().items()])
    if failed:
        reasons = {str(row.error): row for row in failed}
        page.table(("a setting that failed", "why"),
                   [(str(row.trial.settings), why) for why, row in reasons.items()])  # fmt: skip
