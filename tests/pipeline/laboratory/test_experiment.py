"""Experiments are read whole: what would fail in the middle of a night is told at once."""

import re
from pathlib import Path

import pytest

from pipeline.laboratory.experiment import Dimension, Experiment, Range, Settings
from pipeline.laboratory.loading import config_of, load_experiment
from pipeline.laboratory.space import drawn, grid
from protocol.errors import ConfigError

ROOT = Path(__file__).parents[3]
EXAMPLES = sorted((ROOT / "configs/experiments").glob("*.yaml"))
GUEST = "base: {guest: {kind: synthetic, memory: 16MiB}}\n"
SPACE = "space: {codec: [none, zlib]}\n"


def loaded(folder: Path, text: str) -> Experiment:
    """What is in a file of that text."""
    path = folder / "x.yaml"
    path.write_text(text)
    return load_experiment(path)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_every_example_loads(path: Path) -> None:
    """An example that a reader copies and that does not load."""
    assert len(grid(load_experiment(path).space)) > 3


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (GUEST, "1: space: found nothing, expected a value"),
        (GUEST + "space: {}", "2: space: found a mapping, expected at least 1 entries"),
        (GUEST + "space: {codec: []}", "2: space.codec"),
        (GUEST + "space: {codec: [none, zip]}", "2: space.codec: codec: found 'zip'"),
        (GUEST + "space:\n  speed: [1]", "3: space.speed: speed: found an unknown key"),
        (
            GUEST + "space: {parameters.compress-level: {low: 0, high: 12}}",
            "2: space.parameters.compress-level: parameters.compress-level: found 10,",
        ),
        (GUEST + SPACE + "spaces: 1", "3: spaces: found an unknown key (did you mean space?)"),
        (GUEST + SPACE + "objectives: [speed]", "3: objectives.0: found 'speed', expected one of"),
        (GUEST + SPACE + "constraints: [downtime 3]", "3: constraints.0: found 'downtime 3', exp"),
        (
            GUEST + SPACE + "constraints: [downtime <= 300, downtime > 400]",
            "3: constraints: nothing keeps both downtime > 400 and downtime <= 300",
        ),
        (GUEST + SPACE + "search: {kind: random}", "3: search: found a mapping, expected trials"),
        (GUEST + SPACE + "guests: [{memory: 3}]", "3: guests.0: guest.memory: found 3"),
        (GUEST + SPACE + "links: [{speed: 3}]", "3: links.0.speed: found an unknown key"),
        ("base: nowhere.yaml\n" + SPACE, "nowhere.yaml: cannot be read: No such file"),
        ("base: {guest: {kind: file}}\n" + SPACE, "1: base: guest.path: found nothing"),
        (GUEST + "space: {batch-pages: {low: 9, high: 3}}", "high: found 3, expected more than 9"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(tmp_path: Path, text: str, words: str) -> None:
    """A trial of which nobody knows why it has failed."""
    with pytest.raises(ConfigError, match=re.escape(words)):
        loaded(tmp_path, text)


def test_a_base_in_a_file_is_told_with_its_own_lines(tmp_path: Path) -> None:
    """A mistake in the configuration, told as one of the experiment."""
    (tmp_path / "base.yaml").write_text("guest:\n  kind: synthetic\n  memory: 1\n")
    with pytest.raises(ConfigError, match=r"base\.yaml:3: guest\.memory: found 1"):
        loaded(tmp_path, "base: base.yaml\n" + SPACE)


def test_a_point_makes_a_configuration(tmp_path: Path) -> None:
    """A setting that is tried and is not in force; one guest that changes the next."""
    text = GUEST + "space: {guest.workload.dirty-rate: [1MiB, 2MiB]}\nguests: [{}, {memory: 8MiB}]"
    experiment = loaded(tmp_path, text)
    settings: Settings = {"guest.workload.dirty-rate": "2MiB"}
    made = [config_of(experiment, settings, number).guest for number in (1, 0)]
    assert [guest.memory >> 20 for guest in made if guest.kind == "synthetic"] == [8, 16]
    assert [g.workload.dirty_rate >> 20 for g in made if g.kind == "synthetic"] == [2, 2]


@pytest.mark.parametrize(
    ("made", "values"),
    [
        (Range(low=1, high=4), [1, 2, 3, 4]),
        (Range(low=10, high=30, step=10), [10, 20, 30]),
        (Range(low=16, high=128, log=True), [16, 32, 64, 128]),
        (Range(low=0.0, high=1.0, step=0.25), [0, 0.25, 0.5, 0.75, 1.0]),
    ],
)
def test_a_range_in_a_grid(made: Range, values: list[float]) -> None:
    """An end that is left out, or stepped over."""
    assert made.values() == values


def test_a_grid_is_every_combination_once() -> None:
    """A setting that is never tried."""
    points = grid({"a": (1, 2), "b": ("x", "y", "z")})
    assert len(points) == 6
    assert len({tuple(point.items()) for point in points}) == 6


def test_drawn_points_are_in_their_ranges_and_come_again() -> None:
    """A value outside of what is allowed, or an experiment that cannot be resumed."""
    space: dict[str, Dimension] = {
        "whole": Range(low=1, high=9),
        "doubled": Range(low=16, high=1024, log=True),
        "share": Range(low=0.5, high=0.75),
        "name": ("x", "y"),
    }
    points = [point for point, _ in zip(drawn(space, 3), range(300), strict=False)]
    again = [point for point, _ in zip(drawn(space, 3), range(300), strict=False)]
    assert points == again
    for name, (low, high) in {"whole": (1, 9), "doubled": (16, 1024), "share": (0.5, 0.75)}.items():
        figures = [float(point[name]) for point in points]
        assert low <= min(figures) < max(figures) <= high
    assert {point["name"] for point in points} == {"x", "y"}


def test_a_change_to_a_guest_leaves_the_rest_of_it(tmp_path: Path) -> None:
    """Another guest than the one that was asked for, in silence."""
    base = "base: {guest: {kind: synthetic, memory: 16MiB, workload: {content: random}}}\n"
    text = base + SPACE + "guests: [{workload: {dirty-rate: 3MiB}}]"
    guest = config_of(loaded(tmp_path, text), {}, 0).guest
    assert guest.kind == "synthetic"
    assert (guest.workload.content, guest.workload.dirty_rate >> 20) == ("random", 3)
