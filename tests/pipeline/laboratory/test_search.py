"""All trials are made, each once, whatever ends the command in between."""

import resource
import signal
from pathlib import Path

import pytest

from pipeline.laboratory.experiment import Experiment
from pipeline.laboratory.journal import Journal
from pipeline.laboratory.search import Search
from pipeline.laboratory.trials import Row, Trial
from protocol.errors import ConfigError


def experiment(**keys: object) -> Experiment:
    """Sixteen settings of nothing."""
    space = {"a": [1, 2, 3, 4], "b": ["w", "x", "y", "z"]}
    return Experiment.model_validate({"space": space, "warm-up": 1, "repeat": 2, **keys})


def measured(trial: Trial) -> Row:
    """Best in the middle of both."""
    place = "wxyz".index(trial.settings["b"])
    time = 100 + (trial.settings["a"] - 3) ** 2 * 10 + abs(place - 2) * 7
    return Row(trial=trial, measures={"total-time": time, "downtime": 5.0})


class Killed(Exception):
    """The command is gone."""


def made(path: Path, asked: Experiment, *, most: int = 10_000, resume: bool = False) -> list[str]:
    """Run it, until it is killed behind so many trials; the keys of those that were made."""
    keys: list[str] = []

    def make(trial: Trial) -> Row:
        if len(keys) == most:
            raise Killed
        keys.append(trial.key)
        return measured(trial)

    journal = Journal(path / "trials.jsonl", asked.signature, resume=resume)
    try:
        Search(asked, journal, make, lambda *_: None).run()
    except Killed:
        pass
    finally:
        journal.close()
    return keys


SEARCHES = [
    {"kind": "grid"},
    {"kind": "random", "trials": 9, "seed": 4},
    {"kind": "optuna", "trials": 9, "seed": 4},
]


@pytest.mark.parametrize("search", SEARCHES, ids=lambda search: str(search["kind"]))
@pytest.mark.parametrize("most", [0, 1, 2, 7, 16])
def test_one_that_was_killed_goes_on(tmp_path: Path, search: dict[str, object], most: int) -> None:
    """A trial that is missing, or made twice."""
    asked = experiment(search=search)
    first = made(tmp_path, asked, most=most)
    second = made(tmp_path, asked, resume=True)
    assert len(first) == most
    assert not set(first) & set(second)
    settings = 16 if search["kind"] == "grid" else None
    everything = [*first, *second]
    assert len(set(everything)) == len(everything)
    if settings is not None:
        (tmp_path / "whole").mkdir()
        assert set(everything) == set(made(tmp_path / "whole", asked))
        assert len(everything) == 1 + settings * 2
    if search["kind"] == "optuna":
        assert len(everything) == 1 + 9 * 2
    assert made(tmp_path, asked, resume=True) == []


def test_a_line_that_was_cut_off_is_made_again(tmp_path: Path) -> None:
    """A journal that cannot be read after a crash; half a row that counts."""
    asked, path = experiment(), tmp_path / "trials.jsonl"
    first = made(tmp_path, asked, most=5)
    path.write_bytes(path.read_bytes()[:-7])
    second = made(tmp_path, asked, resume=True)
    assert second[0] == first[-1]
    assert len({*first, *second}) == 33


def test_a_line_of_optuna_that_was_cut_off(tmp_path: Path) -> None:
    """A log behind which nothing can be read, after the disk was full."""
    asked, path = experiment(search=SEARCHES[2]), tmp_path / "optuna.log"
    first = made(tmp_path, asked, most=7)
    path.write_bytes(path.read_bytes()[:-7])
    second = made(tmp_path, asked, resume=True)
    assert len({*first, *second}) == len(first) + len(second) == 1 + 9 * 2
    assert made(tmp_path, asked, resume=True) == []


def test_a_folder_with_trials_is_not_written_over(tmp_path: Path) -> None:
    """A night's work, gone."""
    asked = experiment()
    made(tmp_path, asked, most=3)
    with pytest.raises(ConfigError, match="is there: --resume goes on with it"):
        made(tmp_path, asked)
    with pytest.raises(ConfigError, match="is of another experiment"):
        made(tmp_path, experiment(repeat=3), resume=True)
    (tmp_path / "trials.jsonl").write_bytes(asked.signature.encode() + b"\nnothing\n")
    with pytest.raises(ConfigError, match=r"trials\.jsonl:2: "):
        made(tmp_path, asked, resume=True)


def test_a_full_disk_ends_it_and_keeps_what_was_made(tmp_path: Path) -> None:
    """A row that is half there, and a traceback."""
    asked, path = experiment(), tmp_path / "trials.jsonl"
    journal = Journal(path, asked.signature, resume=False)
    trial = Trial({"a": 1, "b": "w"}, 0, 0, 0)
    journal.add(measured(trial))
    kept = path.read_bytes()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(kept) + 9, before[1]))
    try:
        with pytest.raises(ConfigError, match="1 trials are kept"):
            journal.add(measured(trial))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
        journal.close()
    assert path.read_bytes() == kept


def test_the_time_can_be_over(tmp_path: Path) -> None:
    """A search without an end."""
    asked = experiment(search={"kind": "random", "seconds": 1})
    keys = made(tmp_path, asked)
    assert len(keys) == 1 + 16 * 2, "all that there are, before it is over"
    large = {"a": {"low": 1, "high": 9_000_000}, "b": ["w"]}
    slow = experiment(search={"kind": "random", "seconds": 1}, space=large)
    (tmp_path / "slow").mkdir()
    assert 10 < len(made(tmp_path / "slow", slow)) < 1_000_000
