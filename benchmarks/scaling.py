"""What a migration costs as the guest grows, as more of it exists, and as workers are added.

    python -m benchmarks.scaling [--most 4GiB] [--codec zstd] [--repeat 3] [--only TABLE ...]
        [--json PATH]

A quiet file guest of this machine's files, 256 MiB of them again and again, so that each size has
the same mix; both ends on the same cores, `verify: frames`; medians of the repetitions, in which
sizes take turns. Seconds are total time less setup time; beside those of each size, what one thread
takes to copy the same memory into a fresh file, since fresh memory alone costs more, the more of it
is wanted. Where a share of a guest exists, the rest are holes. Guests and copy lie on /dev/shm.
"""

import argparse
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from time import monotonic

from rich.console import Console
from rich.table import Table

from benchmarks.arguments import count, memory_bytes
from benchmarks.image import build_image
from benchmarks.pageferry_peer import migrate
from benchmarks.report import machine, write_figures
from benchmarks.running import Settings

GIB = 1 << 30
SMALLEST = 256 << 20
PIECE_BYTES = 1 << 20
COPIED = ", copied"
SHARES = (0.0625, 0.25, 1.0)
WORKERS = (1, 2, 4, 8)
TABLES = ("memory", "exists", "workers")


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="How the cost of a migration grows")
    parser.add_argument("--most", type=memory_bytes, default="4GiB", metavar="SIZE")
    parser.add_argument("--codec", default="zstd")
    parser.add_argument("--repeat", type=count, default=3)
    parser.add_argument("--only", nargs="+", choices=TABLES, default=TABLES, metavar="TABLE")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write every figure there")
    return parser.parse_args()


@contextmanager
def guest(folder: Path, exists: int, memory: int) -> Iterator[Path]:
    """A file of `memory` bytes, of which the first `exists` do."""
    image = folder / f"image-{memory}"
    build_image(image, min(exists, SMALLEST))
    part = image.read_bytes()
    with image.open("wb") as file:
        for _ in range(exists // len(part)):
            file.write(part)
        file.truncate(memory)
    yield image
    image.unlink()


def seconds(image: Path, codec: str, workers: int) -> float:
    """One migration."""
    settings = Settings(image, image.parent, 1, workers, workers, compare=False)
    return migrate(codec, settings).seconds


def copy_seconds(image: Path) -> float:
    """All of it into a fresh file, by one thread."""
    copy, began = image.with_name("copy"), monotonic()
    with image.open("rb") as read, copy.open("wb") as write:
        shutil.copyfileobj(read, write, PIECE_BYTES)
    took = monotonic() - began
    copy.unlink()
    return took


def by_size(options: argparse.Namespace, folder: Path) -> dict[str, list[float]]:
    """Seconds for guests of each size, and for a copy of them, in turns."""
    sizes = [SMALLEST << step for step in range((options.most // SMALLEST).bit_length())]
    rows = [f"{size / GIB:g} GiB" for size in sizes]
    found: dict[str, list[float]] = {row + what: [] for row in rows for what in ("", COPIED)}
    with ExitStack() as stack:
        images = [stack.enter_context(guest(folder, size, size)) for size in sizes]
        copy_seconds(images[-1])  # the first touch of memory goes to the host
        for _ in range(options.repeat):
            for row, image in zip(rows, images, strict=True):
                found[row + COPIED].append(copy_seconds(image))
                found[row].append(seconds(image, options.codec, 2))
                print(f"memory {row}: {found[row][-1]:.2f} s", flush=True)
    return found


def measure(options: argparse.Namespace, folder: Path) -> dict[str, dict[str, list[float]]]:
    """Seconds by table and row, in the order of the repetitions."""
    found: dict[str, dict[str, list[float]]] = {table: {} for table in options.only}

    def note(table: str, row: str, image: Path, workers: int = 2) -> None:
        runs = [seconds(image, options.codec, workers) for _ in range(options.repeat)]
        found[table][row] = runs
        print(f"{table} {row}: {median(found[table][row]):.2f} s", flush=True)

    if "memory" in options.only:
        found["memory"] = by_size(options, folder)
    for share in SHARES if "exists" in options.only else ():
        with guest(folder, int(2 * GIB * share), 2 * GIB) as image:
            note("exists", f"{share:.2%} of 2 GiB", image)
    if "workers" in options.only:
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
