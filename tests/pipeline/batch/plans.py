"""Plans that tests make up."""

from pathlib import Path
from typing import Any

from pipeline.batch.moves import Move
from pipeline.batch.plan import Plan

MIB = 1 << 20


def plan(hosts: dict[str, dict[str, Any]], **keys: object) -> Plan:
    """A plan of those hosts; its own migration is never looked at."""
    first, second = [*hosts, "elsewhere"][:2]
    one = {"name": "unused", "source": first, "destination": second}
    return Plan.model_validate({"hosts": hosts, "migrations": [one], **keys})


def move(name: str, source: str, *candidates: str, **fields: Any) -> Move:  # noqa: ANN401
    """One guest of 64 MiB, unless something else is said."""
    return Move(name, source, candidates, **{"memory": 64 * MIB, **fields})


def written(folder: Path, text: str) -> Path:
    """A plan's file of that text."""
    path = folder / "plan.yaml"
    path.write_text(text)
    return path
