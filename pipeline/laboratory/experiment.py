"""An experiment: which settings of a migration are tried, over which links, and what is best.

Its file has the same rules as a configuration: unknown keys and wrong types are errors.
"""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from pipeline.config.fields import Between, Rate
from pipeline.config.model import Section
from pipeline.config.units import format_bytes
from pipeline.laboratory.measures import Constraint, Objective

Value = str | int | float | bool
Settings = dict[str, Value]
"""Dotted key → value."""


def _rising(low: float, high: float) -> None:
    if low >= high:
        text = f"expected more than {low}"
        raise PydanticCustomError("misfit", "{text}", {"key": "high", "text": text})


class Range(Section):
    """From `low` to `high`, both included: in steps, or (`log`) each twice the one before."""

    low: int | float
    high: int | float
    step: Annotated[int | float, Between(1e-9, 1e15)] | None = None
    log: bool = False

    @model_validator(mode="after")
    def _is_one(self) -> "Range":
        _rising(self.low, self.high)
        if self.log and self.low <= 0:
            raise ValueError("expected a low that is more than 0, with log")
        if self.log and self.step is not None:
            raise ValueError("expected one of step and log")
        return self

    def values(self) -> list[int | float]:
        """Those of a grid; without a step, whole numbers are one apart, others ten steps."""
        if self.log:
            return _doubled(self.low, self.high)
        whole = isinstance(self.low, int) and isinstance(self.high, int)
        step = self.step or (1 if whole else (self.high - self.low) / 10)
        count = int((self.high - self.low) / step + 1e-9) + 1
        return [self.low + number * step for number in range(count)]


def _doubled(low: float, high: float) -> list[int | float]:
    found = [low]
    while found[-1] * 2 <= high:
        found.append(found[-1] * 2)
    return found


Dimension = Annotated[tuple[Value, ...], Field(strict=False, min_length=1)] | Range


class Link(Section):
    """What lies between the two ends: bytes a second, and the round-trip time in ms."""

    bandwidth: Rate = 0
    rtt: Annotated[float, Between(0, 10_000)] = 0

    @property
    def name(self) -> str:
        """For people: its bandwidth, and ms where there are some."""
        if not self.bandwidth:
            return "no limit"
        return f"{format_bytes(self.bandwidth)}/s" + (f", {self.rtt:g} ms" if self.rtt else "")


class Search(Section):
    """How settings are picked: all of a grid, `trials` of them, or as many as `seconds` allow."""

    kind: Literal["grid", "random", "optuna"] = "grid"
    trials: Annotated[int, Between(1, 1_000_000)] | None = None
    seconds: Annotated[float, Between(1, 1e9)] | None = None
    seed: Annotated[int, Between(0, (1 << 32) - 1)] = 1

    @model_validator(mode="after")
    def _ends(self) -> "Search":
        if self.kind != "grid" and self.trials is None and self.seconds is None:
            raise ValueError("expected trials or seconds: without a grid nothing else ends it")
        return self


class Experiment(Section):
    """All of it. `guests` are parts of the configuration's guest, in turn; `repeat` migrations of
    each setting count, after `warm_up` ones that do not; one takes `timeout` seconds at most."""

    name: Annotated[str, Field(min_length=1, max_length=255)] = "experiment"
    base: Annotated[dict[str, Any], Field(default_factory=dict)]
    space: Annotated[dict[str, Dimension], Field(min_length=1)]
    links: Annotated[tuple[Link, ...], Field(strict=False, min_length=1)] = (Link(),)
    guests: Annotated[tuple[dict[str, Any], ...], Field(strict=False, min_length=1)] = ({},)
    search: Search = Search()
    objectives: Annotated[tuple[Objective, ...], Field(strict=False, min_length=1)] = (
        Objective("total-time"),
    )
    constraints: Annotated[tuple[Constraint, ...], Field(strict=False)] = ()
    timeout: Annotated[float, Between(1, 1e6)] = 600
    repeat: Annotated[int, Between(1, 1000)] = 3
    warm_up: Annotated[int, Between(0, 1000)] = 1

    @property
    def signature(self) -> str:
        """All of it on one line: what a journal is of."""
        return self.model_dump_json(by_alias=True)
