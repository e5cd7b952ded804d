"""What tuning is worth: a base that is set badly on purpose, against the best that is found.

    python -m benchmarks.tuned [--memory 256MiB] [--runs 10] [--json PATH]

The base packs by zlib's level 9 with one worker at each end. `pageferry tune` tries a few others;
then base and `best.yaml` are run in turn. Exit 0 when the best is faster by more than the spread.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table
from ruamel.yaml import YAML

from benchmarks.arguments import count, memory_bytes
from benchmarks.pageferry_peer import run
from benchmarks.report import machine, write_figures

BAD = {"compress-level": 9, "compress-threads": 1, "decompress-threads": 1}
SPACE = {
    "codec": ["zlib", "zstd"],
    "parameters.compress-level": [1, 9],
    "parameters.compress-threads": [1, 2],
    "parameters.decompress-threads": [1, 2],
}


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="What tuning is worth")
    parser.add_argument("--memory", type=memory_bytes, default="256MiB", metavar="SIZE")
    parser.add_argument("--runs", type=count, default=10)
    parser.add_argument("--json", type=Path, metavar="PATH", help="write every figure there")
    return parser.parse_args()


def tuned(base: dict[str, Any], folder: Path) -> dict[str, Any]:
    """What `pageferry tune` finds best, as a configuration."""
    path, out = folder / "experiment.yaml", folder / "out"
    YAML().dump({"name": "tuned", "base": base, "space": SPACE, "repeat": 2}, path)
    command = [sys.executable, "-m", "pipeline", "tune", str(path), "--out", str(out)]
    subprocess.run(command, check=True)
    found: dict[str, Any] = YAML(typ="safe").load(out / "best.yaml")
    return found


def main() -> int:
    """0: the slowest run with the best setting is faster than the fastest with the base."""
    options, about = arguments(), machine(None)
    guest = {"kind": "synthetic", "memory": options.memory,
             "workload": {"working-set": "16MiB", "dirty-rate": "8MiB"}}  # fmt: skip
    base = {"guest": guest, "verify": "frames", "parameters": BAD}
    times: dict[str, list[int]] = {"base": [], "best": []}
    with tempfile.TemporaryDirectory(prefix="pageferry-") as folder:
        configs = {"base": base, "best": tuned(base, Path(folder))}
        for _ in range(options.runs):
            for name, config in configs.items():
                times[name].append(run(config, Path(folder))["total-time"])
                print(name, times[name][-1], "ms", flush=True)
    table = Table("", "median ms", "from", "to")
    for name, all_ms in times.items():
        table.add_row(name, *(f"{one:.0f}" for one in (median(all_ms), min(all_ms), max(all_ms))))
    Console(highlight=False).print(table)
    write_figures(options.json, {"machine": about, "times": times, "best": configs["best"]})
    return 0 if max(times["best"]) < min(times["base"]) else 1


if __name__ == "__main__":
    sys.exit(main())
