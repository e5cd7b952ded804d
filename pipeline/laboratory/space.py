"""The points of a space of settings: all of a grid, or drawn by chance. Pure but for the dice."""

from collections.abc import Iterator, Mapping
from itertools import product
from math import exp, log
from random import Random

from pipeline.laboratory.experiment import Dimension, Range, Settings, Value

GIVE_UP = 1000
"""Points in a row that were drawn before."""


def values_of(dimension: Dimension) -> list[Value]:
    """Those that a grid has of it."""
    return list(dimension.values() if isinstance(dimension, Range) else dimension)


def grid(space: Mapping[str, Dimension]) -> list[Settings]:
    """Every combination, the last key running fastest."""
    names, all_values = list(space), [values_of(dimension) for dimension in space.values()]
    return [dict(zip(names, values, strict=True)) for values in product(*all_values)]


def draw(space: Mapping[str, Dimension], dice: Random) -> Settings:
    """One point, each dimension by itself."""
    return {name: _draw(dimension, dice) for name, dimension in space.items()}


def drawn(space: Mapping[str, Dimension], seed: int) -> Iterator[Settings]:
    """Different points, the same for the same seed, until hardly any are left."""
    dice, seen, repeated = Random(seed), set[str](), 0
    while repeated < GIVE_UP:
        point = draw(space, dice)
        repeated = repeated + 1 if str(point) in seen else 0
        if not repeated:
            seen.add(str(point))
            yield point


def _draw(dimension: Dimension, dice: Random) -> Value:
    if not isinstance(dimension, Range):
        return dice.choice(dimension)
    low, high = dimension.low, dimension.high
    if dimension.step is not None:
        return dice.choice(values_of(dimension))
    if isinstance(low, int) and isinstance(high, int):
        if not dimension.log:
            return dice.randint(low, high)
        return min(high, max(low, round(exp(dice.uniform(log(low), log(high))))))
    return exp(dice.uniform(log(low), log(high))) if dimension.log else dice.uniform(low, high)
