"""What a migration costs as the guest grows, as more of it exists, and as workers are added.

    python benchmarks/scaling.py [--most 4GiB] [--codec zstd] [--repeat 3] [--json PATH]

A quiet file guest of this machine's files, both ends on the same cores, `verify: frames`; medians
of the repetitions. Seconds are total time less setup time. Where a share of a guest exists, the
rest are holes. Guest and copy lie on /dev/shm.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.against_qemu import SEED, count, memory_bytes
from benchmarks.image import build_image
from benchmarks.pageferry_peer import migrate
from benchmarks.report import machine, write_figures
from benchmarks.running import Settings

GIB = 1 << 30
SMALLEST = 256 << 20
SHARES = (0.0625, 0.25, 1.0)
WORKERS = (1, 2, 4, 8)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="How the cost of a migration grows")
    parser.add_argument("--most", type=memory_bytes, default="4GiB", metavar="SIZE")
    parser.add_argument("--codec", default="zstd")
    parser.add_argument("--repeat", type=count, default=3)
    parser.add_argument("--json", type=Path, metavar="PATH", help="write every figure there")
    return parser.parse_args()


@contextmanager
def guest(folder: Path, exists: int, memory: int) -> Iterator[Path]:
    """A file of `memory` bytes, of which the first `exists` do."""
    image = folder / "image"
    build_image(image, exists, SEED)
    with image.open("r+b") as file:
        file.truncate(memory)
    yield image
    image.unlink()


def seconds(image: Path, codec: str, workers: int) -> float:
    """One migration."""
    settings = Settings(image, image.parent, 1, workers, workers, compare=False)
    return migrate(codec, settings).seconds


def measure(options: argparse.Namespace, folder: Path) -> dict[str, dict[str, list[float]]]:
    """Seconds by table and row, in the order of the repetitions."""
    found: dict[str, dict[str, list[float]]] = {"memory": {}, "exists": {}, "workers": {}}

    def note(table: str, row: str, image: Path, workers: int = 2) -> None:
        runs = [seconds(image, options.codec, workers) for _ in range(options.repeat)]
        found[table][row] = runs
        print(f"{table} {row}: {median(found[table][row]):.2f} s", flush=True)

    size = SMALLEST
    while size <= options.most:
        with guest(folder, size, size) as image:
            note("memory", f"{size / GIB:g} GiB", image)
        size *= 2
    for share in SHARES:
        with guest(folder, int(2 * GIB * share), 2 * GIB) as image:
            note("exists", f"{share:.2%} of 2 GiB", image)
    with guest(folder, GIB, GIB) as image:
        for workers in WORKERS:
            note("workers", str(workers), image, workers)
    return found


def main() -> int:
    """0: all were measured."""
    options, about = arguments(), machine(None)
    with tempfile.TemporaryDirectory(prefix="pageferry-", dir="/dev/shm") as folder:
        found = measure(options, Path(folder))
    for name, rows in found.items():
        table = Table(name, "s (median)", "repetitions, s")
        for row, times in rows.items():
            table.add_row(row, f"{median(times):.2f}", " ".join(f"{one:.2f}" for one in times))
        Console(highlight=False).print(table)
    figures = {"machine": about, "codec": options.codec, "seconds": found}
    write_figures(options.json, figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
