"""Which setting is best, which are no worse as far as this machine can tell, and why. Pure.

Figures of a setting are medians of its repetitions. Its spread is how far these lie apart, as a
share of the median; the noise of an experiment is the median of all spreads: smaller differences
are ties.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import exp, log
from statistics import mean, median
from typing import Any

from pipeline.laboratory.measures import Constraint, Measures, Objective
from pipeline.laboratory.trials import Row

Place = tuple[int, int]
"""Number of the guest, and of the link."""


@dataclass
class Standing:
    """One setting: by place the rows that count; figures, and what came of constraints."""

    settings: dict[str, Any]
    rows: dict[Place, list[Row]] = field(default_factory=lambda: defaultdict(list))

    def medians(self, place: Place) -> Measures:
        """Of what completed there; empty where nothing did."""
        done = [row.measures for row in self.rows[place] if row.measures]
        return {name: median(one[name] for one in done) for name in (done[0] if done else ())}

    def repetitions(self, place: Place) -> int:
        """How many completed there."""
        return sum(bool(row.measures) for row in self.rows[place])

    def spread(self, place: Place, measure: str) -> float:
        """As a share of the median; 0 for a single repetition."""
        figures = [row.measures[measure] for row in self.rows[place] if row.measures]
        return (max(figures) - min(figures)) / median(figures) if figures else 0.0


class Standings:
    """Those of all settings that were tried, by one objective after the other."""

    def __init__(
        self,
        rows: Iterable[Row],
        objectives: Sequence[Objective],
        constraints: Sequence[Constraint] = (),
    ) -> None:
        self._objectives = objectives
        self._constraints = constraints
        by_settings: dict[str, Standing] = {}
        for row in rows:
            if row.trial.repetition < 0:
                continue
            trial = row.trial
            key = str(sorted(trial.settings.items()))
            standing = by_settings.setdefault(key, Standing(trial.settings))
            standing.rows[trial.guest, trial.link].append(row)
        self.all = list(by_settings.values())
        self.places = sorted({place for one in self.all for place in one.rows})
        self._counted = [one for one in self.all if self.keeps(one)]

    def noise(self, objective: str) -> float:
        """How far repetitions of one setting lie apart, as a share."""
        spreads = [
            standing.spread(place, objective)
            for standing in self.all
            for place in self.places
            if len([row for row in standing.rows[place] if row.measures]) > 1
        ]
        return median(spreads) if spreads else 0.0

    def keeps(self, standing: Standing) -> bool:
        """Whether it completed, within all constraints, everywhere."""
        for place in self.places:
            medians = standing.medians(place)
            if not medians or not all(one.holds(medians) for one in self._constraints):
                return False
        return True

    def _scores(self, objective: Objective) -> list[float]:
        """Of those that count, how many times the best figure each takes, over all places
        (geometric mean)."""
        logs = [
            [
                objective.sign * log(max(one.medians(place)[objective], 1e-9))
                for place in self.places
            ]
            for one in self._counted
        ]
        best = [min(column) for column in zip(*logs, strict=True)]
        return [
            exp(mean(mine - least for mine, least in zip(row, best, strict=True))) for row in logs
        ]

    def ranked(self, objective: Objective) -> list[tuple[float, Standing]]:
        """Those that count, the best first, each with its score."""
        scored = zip(self._scores(objective), self._counted, strict=True)
        return sorted(scored, key=lambda pair: pair[0])

    def best(self) -> list[Standing]:
        """The best by the first objective, and behind it those that tie with it."""
        ranked, noise = self.ranked(self._objectives[0]), self.noise(self._objectives[0])
        return [one for score, one in ranked if score <= ranked[0][0] * (1 + noise)]

    def pareto(self) -> list[Standing]:
        """Those that none other is at least as good as in all objectives, and better in one."""
        scores = list(zip(*map(self._scores, self._objectives), strict=True))
        return [
            one
            for mine, one in zip(scores, self._counted, strict=True)
            if not any(_beats(other, mine) for other in scores)
        ]


def _beats(one: Sequence[float], other: Sequence[float]) -> bool:
    pairs = list(zip(one, other, strict=True))
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)
