"""What optuna finds in twelve trials, in tables of which all is known: one that was measured, and
one that is made up.

`recorded.csv` has the median total time (ms) of each of the 48 settings of `recorded.yaml`, over
the three repetitions that `pageferry tune tests/pipeline/laboratory/recorded.yaml` has made on two
cores. Three of them are within 5 % of the best: zstd's level 3 with any number of workers. By
chance, twelve trials meet one of these in 59 of 100 cases.
"""

import csv
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from pipeline.laboratory.experiment import Experiment
from pipeline.laboratory.journal import Journal
from pipeline.laboratory.loading import load_experiment
from pipeline.laboratory.search import Search
from pipeline.laboratory.space import grid
from pipeline.laboratory.trials import Row, Trial

HERE = Path(__file__).parent
TRIALS, SEEDS, ENOUGH = 12, range(1, 11), 8
CLOSE = 1.05
"""Times the best."""
KEYS = ("codec", "parameters.compress-level", "parameters.compress-threads")

Time = Callable[[dict[str, Any]], float]
"""What a setting takes."""


def recorded() -> tuple[dict[str, Any], Time]:
    """The space of the recorded table, and what is in it."""
    with (HERE / "recorded.csv").open() as file:
        table = {
            (row["codec"], int(row["level"]), int(row["threads"])): float(row["total-time"])
            for row in csv.DictReader(file)
        }
    space = load_experiment(HERE / "recorded.yaml").space
    return dict(space), lambda settings: table[tuple(settings[key] for key in KEYS)]


RATIO = {"p": 1.0, "q": 1.8, "r": 2.2, "s": 2.6}
WORK = {"p": 100, "q": 300, "r": 500, "s": 900}


def made_up() -> tuple[dict[str, Any], Time]:
    """Sixty settings: whichever takes longer, the link or the cores. Seven are close to the best,
    all of the codec that packs most, and they need two workers, the higher levels three."""

    def time(settings: dict[str, Any]) -> float:
        codec, level, threads = settings["codec"], settings["level"], settings["threads"]
        link = 2000 / RATIO[codec] * (1 - 0.01 * level)
        return max(link, WORK[codec] * (1 + 0.25 * level) / threads) + 200

    return {"codec": list(RATIO), "level": [1, 2, 3, 4, 5], "threads": [1, 2, 3]}, time


def best_of(folder: Path, space: dict[str, Any], time: Time, seed: int) -> float:
    """The best that the trials of one search have taken."""
    search = {"kind": "optuna", "trials": TRIALS, "seed": seed}
    asked = Experiment.model_validate({"space": space, "warm-up": 0, "repeat": 1, "search": search})
    made: list[float] = []

    def make(trial: Trial) -> Row:
        made.append(time(trial.settings))
        return Row(trial=trial, measures={"total-time": made[-1]})

    folder.mkdir()
    with closing(Journal(folder / "trials.jsonl", asked.signature, resume=False)) as journal:
        Search(asked, journal, make, lambda *_: None).run()
    assert len(made) == TRIALS
    return min(made)


@pytest.mark.parametrize(("table", "close"), [(recorded, 3), (made_up, 7)])
def test_a_quarter_of_the_trials_is_enough(
    tmp_path: Path, table: Callable[[], tuple[dict[str, Any], Time]], close: int
) -> None:
    """Suggestions that are no better than chance, or that try again what is known."""
    space, time = table()
    figures = [time(settings) for settings in grid(space)]
    limit = CLOSE * min(figures)
    assert len(figures) >= 48
    assert len(figures) // 4 >= TRIALS
    assert len([figure for figure in figures if figure <= limit]) == close
    found = [best_of(tmp_path / str(seed), space, time, seed) for seed in SEEDS]
    assert len([one for one in found if one <= limit]) >= ENOUGH, found
