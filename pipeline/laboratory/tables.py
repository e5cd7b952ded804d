"""What an experiment leaves: every trial as a row of a table, and the best setting as a file."""

import os
import platform
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from typing import Any

import polars as pl
from ruamel.yaml import YAML

from pipeline.laboratory.experiment import Experiment
from pipeline.laboratory.loading import config_of
from pipeline.laboratory.standings import Standing
from pipeline.laboratory.trials import Row

PACKAGES = ("numpy", "pyzmq", "zlib-ng", "xxhash", "zstandard", "lz4", "isal")


def write_tables(folder: Path, experiment: Experiment, rows: list[Row]) -> None:
    """`trials.parquet` and `trials.csv`; OSError where they cannot be written."""
    here = environment()
    flat = [_flat(row, experiment) | here for row in rows]
    names = dict.fromkeys(name for one in flat for name in one)
    frame = pl.DataFrame(
        {name: [one.get(name) for one in flat] for name in names}, strict=False, nan_to_null=True
    )
    packed = BytesIO()  # a full disk is an error of another kind, where polars meets it
    frame.write_parquet(packed)
    (folder / "trials.parquet").write_bytes(packed.getvalue())
    (folder / "trials.csv").write_text(frame.write_csv())


def _flat(row: Row, experiment: Experiment) -> dict[str, Any]:
    """A row of the table: names with dots for what is inside of something."""
    trial, link = row.trial, experiment.links[row.trial.link]
    return {
        "began": row.began,
        "guest": trial.guest,
        "link": link.name,
        "link.shaped-by": row.shaped_by,
        "repetition": trial.repetition,
        **{f"setting.{key}": value for key, value in trial.settings.items()},
        **row.measures,
        "error": row.error,
        **dict(_leaves(row.result, "result")),
    }


def _leaves(value: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    """What a table can hold; lists (rounds, decisions) are in the journal."""
    for key, inner in value.items():
        name = f"{prefix}.{key}"
        if isinstance(inner, Mapping):
            yield from _leaves(inner, name)
        elif not isinstance(inner, list):
            yield name, inner if isinstance(inner, int | float | None) else str(inner)


def environment() -> dict[str, Any]:
    """What this machine is, as far as it may matter."""
    versions = {f"env.{name}": _version(name) for name in PACKAGES}
    return {
        "env.processor": _processor(),
        "env.processors": len(os.sched_getaffinity(0)),
        "env.kernel": platform.release(),
        "env.python": platform.python_version(),
        "env.pageferry": version("pageferry"),
        **versions,
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except ModuleNotFoundError:
        return None


def _processor() -> str:
    """As the kernel names it."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def write_best(path: Path, experiment: Experiment, best: Standing, words: str) -> None:
    """The configuration of the best setting, which `pageferry run` takes, behind `words`."""
    config = config_of(experiment, best.settings, 0).model_dump(
        mode="json", by_alias=True, exclude_unset=True
    )
    with path.open("w") as file:
        file.writelines(f"# {line}\n" for line in words.splitlines())
        YAML().dump(config, file)
