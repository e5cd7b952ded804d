"""What a migration is judged by: measures of its result, which of them should be small, limits."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

from pipeline.result import Result
from protocol.status import Status

Measures = dict[str, float]
"""Name → figure."""
LARGE_IS_GOOD = frozenset({"memory-rate"})
UNITS = {
    "total-time": "ms",
    "downtime": "ms",
    "wire-bytes": "bytes",
    "cpu-seconds": "s",
    "memory-rate": "bytes/s",
}
_CONSTRAINT = re.compile(r"^([a-z-]+) *(<=|>=|<|>) *([0-9.]+)$")
_HOLDS: dict[str, Callable[[float, float], bool]] = {
    "<=": lambda figure, limit: figure <= limit,
    ">=": lambda figure, limit: figure >= limit,
    "<": lambda figure, limit: figure < limit,
    ">": lambda figure, limit: figure > limit,
}


def measures_of(result: Result, cpu_seconds: float) -> Measures:
    """Those of a migration that completed; `cpu_seconds` of all its processes, the guest's too."""
    if result.status is not Status.COMPLETED or result.ram is None:
        return {}
    wire = (result.ram.transferred or 0) + (result.disk.transferred if result.disk else 0)
    moving_ms = max(1, (result.total_time or 0) - (result.setup_time or 0))
    return {
        "total-time": float(result.total_time or 0),
        "downtime": float(result.downtime or 0),
        "wire-bytes": float(wire),
        "cpu-seconds": cpu_seconds,
        "memory-rate": result.ram.total / moving_ms * 1e3,
    }


class _Text(str):
    """A text that pydantic reads as a class of its own."""

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: object, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """From text; a ValueError says what is allowed."""
        return core_schema.no_info_after_validator_function(cls, core_schema.str_schema())

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """In a schema it is a text."""
        return {"type": "string"}


class Objective(_Text):
    """The name of a measure."""

    def __new__(cls, text: str) -> "Objective":
        """ValueError for a name that is none."""
        if text not in UNITS:
            raise ValueError(f"expected one of {', '.join(UNITS)}")
        return super().__new__(cls, text)

    @property
    def sign(self) -> int:
        """1 where a small figure is a good one, else -1."""
        return -1 if self in LARGE_IS_GOOD else 1


@dataclass(frozen=True)
class Limit:
    """What a constraint says."""

    measure: str
    relation: str
    figure: float


class Constraint(_Text):
    """As `downtime <= 300`: a measure, how, a figure in its unit."""

    limit: Limit

    def __new__(cls, text: str) -> "Constraint":
        """ValueError for what is none."""
        match = _CONSTRAINT.match(text)
        if match is None or match[1] not in UNITS or match[3].count(".") > 1:
            raise ValueError(
                "expected a measure, one of <= >= < >, and a number, as in downtime <= 300;"
                f" measures are {', '.join(UNITS)}"
            )
        made = super().__new__(cls, text)
        made.limit = Limit(match[1], match[2], float(match[3]))
        return made

    def holds(self, measures: Mapping[str, float]) -> bool:
        """Whether a setting with these figures keeps it."""
        limit = self.limit
        return _HOLDS[limit.relation](measures[limit.measure], limit.figure)


def contradiction(constraints: tuple[Constraint, ...]) -> str | None:
    """Two constraints that nothing can keep; None where there are none."""
    for low in constraints:
        for high in constraints:
            one, other = low.limit, high.limit
            apart = one.measure == other.measure and ">" in one.relation and "<" in other.relation
            strict = "=" not in one.relation or "=" not in other.relation
            if apart and (one.figure > other.figure or (strict and one.figure == other.figure)):
                return f"{low!s} and {high!s}"
    return None
