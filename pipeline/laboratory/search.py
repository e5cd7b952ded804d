"""Makes the trials of an experiment, by grid, by chance, or as optuna suggests; each once.

What is in the journal is not made again: an experiment that was killed goes on where it was.
"""

from collections.abc import Callable, Iterator
from itertools import islice
from time import monotonic

from pipeline.laboratory.experiment import Experiment, Settings
from pipeline.laboratory.journal import Journal
from pipeline.laboratory.space import drawn, grid
from pipeline.laboratory.trials import Places, Row, Trial, in_rounds

CHUNK = 8
"""Points drawn at a time, where nobody has said how many: their repetitions are interleaved."""

Make = Callable[[Trial], Row]
Told = Callable[[Row, int | None], None]
"""Hears of each row that is made, and how many trials there are in all, where that is known."""


class Search:
    """Of one experiment; `make` makes a trial."""

    def __init__(self, experiment: Experiment, journal: Journal, make: Make, told: Told) -> None:
        self._experiment = experiment
        self._journal = journal
        self._make = make
        self._told = told
        seconds = experiment.search.seconds
        self._until = None if seconds is None else monotonic() + seconds
        self.places = Places(len(experiment.guests), len(experiment.links))

    def run(self) -> None:
        """Until all are made, or the time is over."""
        if self._experiment.search.kind == "optuna":
            from pipeline.laboratory.suggested import suggested  # its library is an extra

            suggested(self._experiment, self._journal, self)
            return
        for trials in self._planned():
            for trial in trials:
                if self.is_over:
                    return
                self.made(trial, len(trials) if self._until is None else None)

    @property
    def is_over(self) -> bool:
        """Whether the time is."""
        return self._until is not None and monotonic() > self._until

    def made(self, trial: Trial, in_all: int | None) -> Row:
        """The row of a trial: made now, unless it is there."""
        if (known := self._journal.maybe_row(trial)) is not None:
            return known
        row = self._make(trial)
        self._journal.add(row)
        self._told(row, in_all)
        return row

    def _planned(self) -> Iterator[list[Trial]]:
        search = self._experiment.search
        if search.kind == "grid":
            points: Iterator[Settings] = iter(grid(self._experiment.space))
        else:
            points = drawn(self._experiment.space, search.seed)
        if search.kind == "grid" or search.trials is not None:
            yield self._rounds(list(islice(points, search.trials)), self._experiment.warm_up)
            return
        warm_up = self._experiment.warm_up
        while chunk := list(islice(points, CHUNK)):
            yield self._rounds(chunk, warm_up)
            warm_up = 0

    def _rounds(self, points: list[Settings], warm_up: int) -> list[Trial]:
        repeat, seed = self._experiment.repeat, self._experiment.search.seed
        return in_rounds(points, self.places, repeat, warm_up, seed)
