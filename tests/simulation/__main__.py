"""Simulated migrations with faults, each decided by its seed.

    python -m tests.simulation [--seeds N] [--first SEED] [--plant NAME]
    python -m tests.simulation --seed S [--story] [--plant NAME]

Exit 0 when every invariant holds; with --plant, when the planted mistake is found.
"""

import argparse
import sys
import time

from tests.simulation.migration import Outcome
from tests.simulation.planted import PLANTED
from tests.simulation.seeds import first_broken, play, play_all, tally

SHOWN = 3
"""Stories that are printed; the other seeds are named."""


def say(line: str) -> None:
    """One line for the person who waits."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def show(outcome: Outcome, plant: str | None) -> None:
    """Why, how it came to it, and how to see it again."""
    option = f" --plant {plant}" if plant else ""
    say("\n".join(outcome.lines))
    say(f"seed {outcome.seed} ({outcome.end}):")
    say("\n".join(f"  {words}" for words in outcome.broken) or "  all invariants hold")
    say(f"replay: python -m tests.simulation --seed {outcome.seed} --story{option}")


def one(seed: int, plant: str | None, *, story: bool) -> bool:
    """Play one seed; whether all invariants hold."""
    (outcome,) = play([seed], plant, told=story)
    if story or outcome.broken:
        show(outcome, plant)
    else:
        say(f"seed {seed} ({outcome.end}): all invariants hold")
    return not outcome.broken


def many(first: int, count: int) -> bool:
    """Play many seeds on all cores; whether all invariants hold in all of them."""
    began = time.monotonic()
    counted = tally(play_all(first, count))
    for outcome in counted.broken[:SHOWN]:
        show(outcome, None)
    if counted.broken:
        say(f"broken: {', '.join(str(outcome.seed) for outcome in counted.broken)}")
    say(f"{counted}\n{time.monotonic() - began:.0f} s")
    return not counted.broken


def find(first: int, count: int, plant: str) -> bool:
    """Play seeds until the planted mistake is found; whether it is."""
    outcome = first_broken(range(first, first + count), plant)
    if outcome is None:
        say(f"{plant}: not found in {count} seeds")
        return False
    show(outcome, plant)
    say(f"{plant}: found at seed {outcome.seed}")
    return True


def main(arguments: list[str]) -> int:
    """0 when what was asked for holds."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation")
    parser.add_argument("--seeds", type=int, default=20_000, metavar="N")
    parser.add_argument("--first", type=int, default=0, metavar="SEED")
    parser.add_argument("--seed", type=int, metavar="S")
    parser.add_argument("--story", action="store_true")
    parser.add_argument("--plant", choices=PLANTED, metavar="NAME", help=", ".join(PLANTED))
    asked = parser.parse_args(arguments)
    if asked.seed is not None:
        return 0 if one(asked.seed, asked.plant, story=asked.story) else 1
    if asked.plant is not None:
        return 0 if find(asked.first, asked.seeds, asked.plant) else 1
    return 0 if many(asked.first, asked.seeds) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
