"""From an experiment's file to an Experiment in which every setting makes a configuration."""

from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

from ruamel.yaml.comments import CommentedMap

from pipeline.config.loading import Document, read_document, validated
from pipeline.config.merging import merged
from pipeline.config.model import SECTIONS, Config, Section
from pipeline.laboratory.experiment import Experiment, Link, Search, Settings
from pipeline.laboratory.measures import contradiction
from pipeline.laboratory.space import values_of
from protocol.errors import ConfigError

EXPERIMENT_SECTIONS: Mapping[str, type[Section]] = {
    **SECTIONS,
    "links": Link,
    "search": Search,
}


def load_experiment(path: Path) -> Experiment:
    """What is in the file `path`; ConfigError, in one line, for every mistake, also one that a
    migration would show only when its turn comes."""
    document = read_document(path)
    base = document.data.get("base")
    if isinstance(base, str):
        document.data["base"] = _base(path.parent / base)
    experiment = validated(document, Experiment, EXPERIMENT_SECTIONS)
    if (both := contradiction(experiment.constraints)) is not None:
        line = document.line(("constraints",))
        raise ConfigError(f"{path}:{line}: constraints: nothing keeps both {both}")
    _check_points(path, document, experiment)
    return experiment


def _base(path: Path) -> dict[str, Any]:
    """A configuration in a file of its own, whose mistakes are told with their own lines."""
    document = read_document(path)
    validated(document, Config)
    return dict(document.data)


def _check_points(path: Path, document: Document, experiment: Experiment) -> None:
    """Each guest, and each value by itself; ConfigError where one makes no configuration."""
    listed = "guests" in document.data
    for number in range(len(experiment.guests)):
        where = f"guests.{number}" if listed else "base"
        line = document.line(("guests" if listed else "base",))
        _check(path, line, where, experiment, {}, number)
    for key, dimension in experiment.space.items():
        for value in values_of(dimension):
            line = document.line(("space", key))
            _check(path, line, f"space.{key}", experiment, {key: value}, 0)


def _check(
    path: Path, line: int, where: str, experiment: Experiment, settings: Settings, guest: int
) -> None:
    try:
        config_of(experiment, settings, guest)
    except ConfigError as error:
        said = str(error).removeprefix("--set: ")
        raise ConfigError(f"{path}:{line}: {where}: {said}") from None


def config_of(experiment: Experiment, settings: Settings, guest: int) -> Config:
    """The configuration of one point, for guest number `guest`; ConfigError where it is none."""
    data = deepcopy(experiment.base)
    data.setdefault("name", experiment.name)
    data["guest"] = merged({"kind": "synthetic", **data.get("guest", {})}, experiment.guests[guest])
    for key, value in settings.items():
        _put(data, key.split("."), value)
    return validated(Document("--set", CommentedMap(data)), Config)


def _put(data: dict[str, Any], keys: list[str], value: object) -> None:
    for key in keys[:-1]:
        inner = data.get(key)
        data[key] = dict(inner) if isinstance(inner, Mapping) else {}
        data = data[key]
    data[keys[-1]] = value
