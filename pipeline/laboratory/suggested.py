"""What optuna suggests: a study for each guest and link, kept in a journal of its own.

A list of numbers is handed over as their order, so that neighbours are known for such.
"""

import os
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import optuna
from optuna.samplers import TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from pipeline.laboratory.experiment import Dimension, Experiment, Range, Settings, Value
from pipeline.laboratory.journal import Journal
from pipeline.laboratory.measures import Constraint, Measures
from pipeline.laboratory.space import drawn
from pipeline.laboratory.trials import Trial

if TYPE_CHECKING:
    from pipeline.laboratory.search import Search

STARTUP = 4
"""Trials by chance, before anything is suggested."""
ASKS = 5
"""How often what is known may be suggested, before a point is drawn."""


def suggested(experiment: Experiment, journal: Journal, search: "Search") -> None:
    """Make what is suggested, place by place, until there are enough, or the time is over."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = JournalStorage(JournalFileBackend(str(_whole(journal.beside("optuna.log")))))
    for guest in range(search.places.guests):
        for link in range(search.places.links):
            _Study(experiment, search, storage, guest, link).run()


def _whole(path: Path) -> Path:
    """Cut off a line that a full disk has left, behind which optuna would read nothing."""
    if path.exists():
        whole, end, _ = path.read_bytes().rpartition(b"\n")
        os.truncate(path, len(whole + end))
    return path


class _Study:
    """Of one guest over one link."""

    def __init__(
        self,
        experiment: Experiment,
        search: "Search",
        storage: JournalStorage,
        guest: int,
        link: int,
    ) -> None:
        self._experiment = experiment
        self._search = search
        self._guest, self._link = guest, link
        sampler = TPESampler(
            seed=experiment.search.seed,
            n_startup_trials=STARTUP,
            multivariate=True,
            constraints_func=_broken if experiment.constraints else None,
        )
        self._study = optuna.create_study(
            storage=storage,
            sampler=sampler,
            study_name=f"guest {guest}, link {link}",
            directions=["minimize"] * len(experiment.objectives),
            load_if_exists=True,
        )
        self._known = {
            self._point(trial) for trial in self._study.trials if trial.state.is_finished()
        }
        for trial in self._study.trials:
            if not trial.state.is_finished():  # it was under way when its command was killed
                self._study.tell(trial.number, state=TrialState.FAIL)
                self._study.enqueue_trial(trial.params)

    def _point(self, trial: FrozenTrial | optuna.Trial) -> str:
        return str(sorted(trial.params.items()))

    def run(self) -> None:
        """As many different points as were asked for."""
        most = self._experiment.search.trials
        for number in range(self._experiment.warm_up):
            trial = Trial(
                next(drawn(self._experiment.space, 0)), self._guest, self._link, -1 - number
            )
            self._search.made(trial, None)
        while not self._search.is_over and (most is None or len(self._known) < most):
            if not self._one():
                return

    def _one(self) -> bool:
        """Try one more point; whether there was one. Where what is suggested is known, one by
        chance."""
        for number in range(2 * ASKS):
            if number >= ASKS and (unseen := self._maybe_unseen()) is not None:
                self._study.enqueue_trial(unseen)
            asked = self._study.ask()
            settings = {
                name: _suggest(asked, name, dimension)
                for name, dimension in self._experiment.space.items()
            }
            point = self._point(asked)
            if point not in self._known:
                self._tell(asked, settings)
                self._known.add(point)
                return True
            self._study.tell(asked, state=TrialState.FAIL)
        return False

    def _maybe_unseen(self) -> dict[str, Value] | None:
        """A point that was not tried, as optuna has it."""
        space = self._experiment.space
        for settings in drawn(space, self._experiment.search.seed):
            params = {name: _param(space[name], value) for name, value in settings.items()}
            if str(sorted(params.items())) not in self._known:
                return params
        return None

    def _tell(self, asked: optuna.Trial, settings: Settings) -> None:
        experiment = self._experiment
        rows = [
            self._search.made(Trial(settings, self._guest, self._link, number), self._in_all)
            for number in range(experiment.repeat)
        ]
        done = [row.measures for row in rows if row.measures]
        if not done:
            self._study.tell(asked, state=TrialState.FAIL)
            return
        medians = {name: median(one[name] for one in done) for name in done[0]}
        asked.set_user_attr(
            "broken", [_by_how_much(one, medians) for one in experiment.constraints]
        )
        self._study.tell(asked, [one.sign * medians[one] for one in experiment.objectives])

    @property
    def _in_all(self) -> int | None:
        search, places = self._experiment.search, self._search.places
        if search.trials is None or search.seconds is not None:
            return None
        a_place = search.trials * self._experiment.repeat + self._experiment.warm_up
        return a_place * places.guests * places.links


def _suggest(trial: optuna.Trial, name: str, dimension: Dimension) -> Value:
    if not isinstance(dimension, Range):
        return _of_list(trial, name, dimension)
    low, high, step = dimension.low, dimension.high, dimension.step
    if isinstance(low, int) and isinstance(high, int) and isinstance(step, int | None):
        return trial.suggest_int(name, low, high, step=step or 1, log=dimension.log)
    return trial.suggest_float(name, low, high, step=step, log=dimension.log)


def _of_list(trial: optuna.Trial, name: str, values: tuple[Value, ...]) -> Value:
    if not _have_an_order(values):
        chosen = trial.suggest_categorical(name, values)
        assert chosen is not None, "one of the values"
        return chosen
    rising = sorted(values, key=float)
    return rising[trial.suggest_int(name, 0, len(rising) - 1)]


def _have_an_order(values: tuple[Value, ...]) -> bool:
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


def _param(dimension: Dimension, value: Value) -> Value:
    """What stands for a value: of numbers in a list, their place."""
    if isinstance(dimension, Range) or not _have_an_order(dimension):
        return value
    return sorted(dimension, key=float).index(value)


def _by_how_much(constraint: Constraint, medians: Measures) -> float:
    """A constraint is broken where this is more than 0."""
    limit = constraint.limit
    over = medians[limit.measure] - limit.figure
    return 0.0 if constraint.holds(medians) else abs(over) or 1e-9


def _broken(trial: FrozenTrial) -> list[float]:
    return list(trial.user_attrs.get("broken", ()))
