"""What was measured, held against each other: medians and ratios, as a table and as JSON."""

import json
import os
import platform
from collections import defaultdict
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.running import Measured

PAIRS = (
    ("pageferry-zlib", "qemu-compress"),
    ("pageferry-zlib", "qemu-multifd-zlib"),
    ("pageferry-zstd", "qemu-multifd-zstd"),
    ("pageferry-none", "qemu-multifd-none"),
    ("pageferry-auto", "pageferry-none"),
    ("pageferry-zlib", "codec-zlib"),
    ("pageferry-zstd", "codec-zstd"),
)


@dataclass
class Results:
    """Every run by name, in the order of the rounds, and why a name has none (any more)."""

    image_bytes: int
    runs: dict[str, list[Measured]] = field(default_factory=lambda: defaultdict(list))
    failed: dict[str, str] = field(default_factory=dict)
    wrong: bool = False

    def add(self, name: str, run: Measured) -> None:
        """One more round of `name`."""
        self.runs[name].append(run)

    def rates(self, name: str) -> list[float]:
        """MiB of guest memory a second, one for each round."""
        return [self.image_bytes / (1 << 20) / run.seconds for run in self.runs[name]]

    def ratios(self) -> dict[tuple[str, str], float]:
        """How much faster ours is, the median over the rounds; pairs that both ran."""
        return {
            pair: median(
                ours / theirs for ours, theirs in zip(*map(self.rates, pair), strict=False)
            )
            for pair in PAIRS
            if all(name in self.runs for name in pair)
        }


def machine(qemu: str | None) -> dict[str, str]:
    """Where this was measured; a load beside ours makes the figures worthless."""
    cpus = Path("/proc/cpuinfo").read_text().split("\n")
    model = next((line.partition(": ")[2] for line in cpus if line.startswith("model name")), "?")
    cores = f"{len(os.sched_getaffinity(0))} of {os.cpu_count()}"
    kernel = f"{platform.system()} {platform.release()}"
    load = f"{os.getloadavg()[0]:.2f} at the start"
    qemu = qemu or "not installed"
    return {"cpu": model, "cores": cores, "load": load, "kernel": kernel, "qemu": qemu}


def print_report(results: Results, about: dict[str, str]) -> None:
    """The machine, the medians, the ratios."""
    console = Console(highlight=False)
    for key, value in about.items():
        console.print(f"{key + ':':8}{value}", markup=False)
    if about["qemu"] == "not installed":
        console.print("qemu-system-x86_64 is not installed: apt-get install qemu-system-x86")
    console.print(rates_table(results))
    if ratios := results.ratios():
        console.print(ratios_table(ratios))


def rates_table(results: Results) -> Table:
    """A row for each name that was asked for and could be tried."""
    table = Table("name", "MiB/s (median)", "rounds")
    for name in results.runs:
        rates = results.rates(name)
        table.add_row(name, f"{median(rates):.0f}", " ".join(f"{rate:.0f}" for rate in rates))
    for name, reason in results.failed.items():
        table.add_row(name, "-", reason)
    return table


def ratios_table(ratios: dict[tuple[str, str], float]) -> Table:
    """A row for each pair."""
    table = Table("ours", "against", "ratio (median of the rounds)")
    for (ours, theirs), ratio in ratios.items():
        table.add_row(ours, theirs, f"{ratio:.2f}")
    return table


def spread_table(runs: list[dict[str, float | None]]) -> Table:
    """A row for each figure, in ms; runs that did not reach one are left out of it."""
    table = Table("ms", "median", "95 %", "largest")
    for name in runs[0]:
        values = sorted(ms for run in runs if (ms := run[name]) is not None)
        if values:
            nearly = values[-(-95 * len(values) // 100) - 1]
            table.add_row(name, *(f"{ms:.1f}" for ms in (median(values), nearly, values[-1])))
    return table


def write_figures(path: Path | None, figures: dict[str, Any]) -> None:
    """As JSON, where that was asked for."""
    if path is not None:
        path.write_text(json.dumps(figures, indent=2) + "\n")


def as_json(results: Results, about: dict[str, str]) -> dict[str, Any]:
    """Every figure; `wire_bytes` as each tells it (QEMU's multifd may count raw bytes)."""
    return {
        "machine": about,
        "image-bytes": results.image_bytes,
        "runs": {name: [asdict(run) for run in runs] for name, runs in results.runs.items()},
        "medians": {name: median(results.rates(name)) for name in results.runs},
        "ratios": {f"{ours} / {theirs}": r for (ours, theirs), r in results.ratios().items()},
        "failed": results.failed,
    }
