"""What deltas save: a guest that changes little in each page, moved with and without `xbzrle`.

    python -m benchmarks.deltas [--memory 512MiB] [--repeat 3] [--codec zstd] [--json PATH]

The guest writes 64 bytes into each of 25,600 pages a second of its working set; both kinds of run
take turns. Told of the rounds after the second one: bytes on the wire for a page, pages a second.
"""

import argparse
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.arguments import count, memory_bytes
from benchmarks.pageferry_peer import run
from benchmarks.report import machine, write_figures
from benchmarks.running import RunError

LIMIT_MS = 40
WAYS = {"compression alone": False, "with xbzrle": True}
WORKLOAD = {"working-set": "128MiB", "dirty-rate": "100MiB", "bytes-per-page": 64}


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="What deltas save")
    parser.add_argument("--memory", type=memory_bytes, default="512MiB", metavar="SIZE")
    parser.add_argument("--repeat", type=count, default=3)
    parser.add_argument("--codec", default="zstd")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write every figure there")
    return parser.parse_args()


def move(options: argparse.Namespace, folder: Path, *, xbzrle: bool) -> dict[str, Any]:
    """The result of one migration, with a downtime so short that it takes some rounds."""
    return run(
        {
            "guest": {"kind": "synthetic", "memory": options.memory, "workload": WORKLOAD},
            "codec": options.codec,
            "verify": "frames",
            "capabilities": {"xbzrle": xbzrle},
            "parameters": {
                "compress-threads": 2,
                "decompress-threads": 2,
                "xbzrle-cache-size": options.memory,
                "downtime-limit": LIMIT_MS,
            },
        },
        folder,
    )


def later_rounds(result: dict[str, Any]) -> tuple[float, float]:
    """Bytes on the wire for a page, and pages a second, of the rounds after the second one."""
    rounds = result["rounds"][2:-1]
    if not rounds:
        raise RunError("it took too few rounds: a lower downtime limit has more")
    pages, wire, ms = (sum(one[key] for one in rounds) for key in ("pages", "wire-bytes", "ms"))
    return wire / pages, pages / ms * 1e3


def main() -> int:
    """0: all completed."""
    options, about = arguments(), machine(None)
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in WAYS}
    with tempfile.TemporaryDirectory(prefix="pageferry-", dir="/dev/shm") as folder:
        for _ in range(options.repeat):
            for name, xbzrle in WAYS.items():
                runs[name].append(move(options, Path(folder), xbzrle=xbzrle))
                print(name, *(f"{one:.0f}" for one in later_rounds(runs[name][-1])), flush=True)
    table = Table("", "wire bytes a page", "pages a second", "total time, s")
    for name, results in runs.items():
        told = [later_rounds(result) for result in results]
        sizes, rates = ([pair[part] for pair in told] for part in (0, 1))
        total = median(result["total-time"] for result in results) / 1e3
        table.add_row(name, f"{median(sizes):.0f}", f"{median(rates):.0f}", f"{total:.2f}")
    Console(highlight=False).print(table)
    write_figures(options.json, {"machine": about, "runs": runs})
    return 0


if __name__ == "__main__":
    sys.exit(main())
