"""How long a guest stands still, over many migrations, and what that time goes to.

    python -m benchmarks.downtime [--guest synthetic|qemu] [--memory 512MiB] [--dirty-rate PAGES]
                                  [--runs 20] [--verify full|frames] [--tracker auto|uffd|hash]
                                  [--downtime-limit MS] [--json PATH]

Both ends are on this machine. Each run moves a fresh guest with `pageferry run`. `--dirty-rate` is
in pages a second, in a working set of 16 MiB; 0 is an idle guest. For `qemu` the guests are real
machines under TCG that boot the tests' own sector, and the gap in what they say is measured, too.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.arguments import count, memory_bytes
from benchmarks.pageferry_peer import run
from benchmarks.qemu_peer import version
from benchmarks.report import machine, spread_table, write_figures
from protocol.limits import PAGE_BYTES
from tests.qemu.machine import two_machines
from tests.qemu.pairs import config_of
from tests.qemu.sector import Guest

WORKING_BYTES = 16 << 20
FIRST_WORKING = 1024
"""In the sector's guest the first pages are its own."""


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Downtime over many migrations, and its parts")
    parser.add_argument("--guest", choices=("synthetic", "qemu"), default="synthetic")
    parser.add_argument("--memory", type=memory_bytes, default="512MiB", metavar="SIZE")
    parser.add_argument("--dirty-rate", type=int, default=0, metavar="PAGES", help="a second")
    parser.add_argument("--runs", type=count, default=20)
    parser.add_argument("--verify", choices=("full", "frames"), default="full")
    parser.add_argument("--tracker", choices=("auto", "uffd", "hash"), default="auto")
    parser.add_argument("--downtime-limit", type=int, default=300, metavar="MS")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write every figure there")
    return parser.parse_args()


def configuration(options: argparse.Namespace) -> dict[str, Any]:
    """What both kinds of guest have in common."""
    return {
        "verify": options.verify,
        "tracker": options.tracker,
        "parameters": {
            "compress-threads": 2,
            "decompress-threads": 2,
            "downtime-limit": options.downtime_limit,
        },
    }


def move_synthetic(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The result of one migration."""
    rate_bytes = options.dirty_rate * PAGE_BYTES
    workload = {"working-set": WORKING_BYTES, "dirty-rate": rate_bytes}
    if not rate_bytes:
        workload = {"pattern": "idle"}
    guest = {"kind": "synthetic", "memory": options.memory, "workload": workload}
    return run({**configuration(options), "guest": guest}, folder)


def move_qemu(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The same of a machine; `gap` is what its serial port was silent for, in ms."""
    working = range(FIRST_WORKING, FIRST_WORKING + WORKING_BYTES // PAGE_BYTES)
    guest = Guest(options.memory >> 20, working, options.dirty_rate, tick_ms=5)
    with two_machines(folder, guest) as (here, there):
        here.wait_up()
        here.wait_beats(5)
        result = run({**config_of(here, there), **configuration(options)}, folder)
        there.wait_beats(5)
        return {**result, "gap": here.gap(there)[0] * 1000}


def measure(move: Callable[[Path], dict[str, Any]], runs: int) -> list[dict[str, Any]]:
    """The results of so many migrations, and a line of each."""
    results = []
    with tempfile.TemporaryDirectory(prefix="pageferry-", dir="/dev/shm") as folder:
        for number in range(1, runs + 1):
            results.append(move(Path(folder)))
            print(f"run {number}: {figures(results[-1])}", flush=True)
    return results


def figures(result: dict[str, Any]) -> dict[str, float | None]:
    """Milliseconds of the whole, of the gap (by its own stamps, if synthetic), of each part."""
    gap = result.get("gap", result["guest-gap"])
    return {"downtime": result["downtime"], "gap": gap, **result["downtime-parts"]}


def main() -> int:
    """0: all completed."""
    options = arguments()
    about = machine(version())
    move = {"synthetic": move_synthetic, "qemu": move_qemu}[options.guest]
    results = measure(partial(move, options), options.runs)
    Console(highlight=False).print(spread_table([figures(result) for result in results]))
    write_figures(options.json, {"machine": about, "runs": results})
    return 0


if __name__ == "__main__":
    sys.exit(main())
