"""The dry run of a large plan: how long it takes, how much memory, how good the plan is.

    python -m benchmarks.plan [--guests 10000] [--hosts 1000] [--seed 1] [--json PATH]

A plan is made by chance, written to a file and read as `batch plan` does. No plan can be done
sooner than its lower bound: the guests of the slowest host through the places that it has, or all
of them through the places of the cluster. Exit 0 when the makespan is within 10 % of it.
"""

import argparse
import json
import resource
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from random import Random
from time import monotonic
from typing import Any

from benchmarks.arguments import count
from benchmarks.report import machine, write_figures
from pipeline.batch.forecast import OVERHEAD_S, forecast
from pipeline.batch.loading import load_plan
from pipeline.batch.moves import Move
from pipeline.batch.plan import Plan
from pipeline.batch.prediction import memory_rate, memory_to_send

GIB, MIB = 1 << 30, 1 << 20
LINK = 1180 * MIB
LIMITS = {"cluster": 1000, "per-source": 2, "per-destination": 2}
MOST_SECONDS, MOST_BYTES, MOST_OVER = 60, GIB, 1.10


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="The dry run of a large plan")
    parser.add_argument("--guests", type=count, default=10_000)
    parser.add_argument("--hosts", type=count, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, metavar="PATH", help="write every figure there")
    return parser.parse_args()


def made(guests: int, hosts: int, seed: int) -> dict[str, Any]:
    """A plan: a tenth of the hosts is emptied onto eight others each."""
    dice = Random(seed)
    names = [f"h{number}" for number in range(hosts)]
    leaving, staying = names[: hosts // 10], names[hosts // 10 :]
    moves = [
        {
            "name": f"g{number}",
            "source": leaving[number % len(leaving)],
            "destination": dice.sample(staying, 8),
            "config": {"guest": {"memory": f"{dice.choice((1, 2, 4, 8))}GiB",
                                 "workload": {"dirty-rate": f"{dice.randint(0, 40)}MiB"}}},
        }
        for number in range(guests)
    ]  # fmt: skip
    return {
        "hosts": {name: {"link": LINK, "memory": 128 * GIB} for name in names},
        "migrations": moves,
        "limits": LIMITS,
        "defaults": {"guest": {"kind": "synthetic"}, "codec": "zstd"},
    }


def lower_bound(plan: Plan, moves: list[Move]) -> float:
    """Seconds below which nobody gets."""
    wire: defaultdict[str, float] = defaultdict(float)
    busy: defaultdict[str, float] = defaultdict(float)
    for move in moves:
        rate = memory_rate(move.codec, plan.hosts[move.source].link)
        sending = memory_to_send(move.memory, move.dirty_rate, rate) / rate
        wire[move.source] += sending
        busy[move.source] += OVERHEAD_S + sending
    places = min(plan.limits.per_source, plan.limits.cluster)
    hosts = max(busy.values()) / places
    return max(hosts, sum(busy.values()) / plan.limits.cluster)


def main() -> int:
    """0: within all limits."""
    options, about = arguments(), machine(None)
    with tempfile.TemporaryDirectory(prefix="pageferry-") as folder:
        path = Path(folder) / "plan.yaml"
        path.write_text(json.dumps(made(options.guests, options.hosts, options.seed), indent=1))
        began = monotonic()
        plan, moves = load_plan(path)
        read = monotonic()
        found = forecast(plan, moves)
        done = monotonic()
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    bound = lower_bound(plan, moves)
    figures = {
        "guests": len(found.foreseen), "stuck": len(found.stuck),
        "read-s": round(read - began, 1), "planned-s": round(done - read, 1),
        "memory-mib": used // MIB, "makespan-s": round(found.seconds, 1),
        "lower-bound-s": round(bound, 1), "ratio": round(found.seconds / bound, 3),
    }  # fmt: skip
    for name, figure in figures.items():
        print(f"{name:<14}{figure}")
    write_figures(options.json, {"machine": about, "figures": figures})
    good = done - began < MOST_SECONDS and used < MOST_BYTES and not found.stuck
    return 0 if good and found.seconds <= bound * MOST_OVER else 1


if __name__ == "__main__":
    sys.exit(main())
