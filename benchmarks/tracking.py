"""What it costs a running QEMU to be tracked: how long it is held, and how long a scan takes.

    python -m benchmarks.tracking [--memory 512MiB] [--dirty-rate 2000] [--runs 50]

Each run attaches to the machine, scans once to arm, and once more after 100 ms, and lets go of it.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter, sleep

from rich.console import Console

from benchmarks.arguments import count, memory_bytes
from benchmarks.report import spread_table
from pipeline.guests.qemu.source import QemuGuest
from pipeline.injection.attach import attach
from pipeline.uffd import WrittenScan
from protocol.limits import PAGE_BYTES
from tests.qemu.machine import Qemu
from tests.qemu.sector import Guest

WORKING = range(1024, 1024 + 4096)
ROUND_S = 0.1


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Attach to a running QEMU, and scan its memory")
    parser.add_argument("--memory", type=memory_bytes, default="512MiB", metavar="SIZE")
    parser.add_argument("--dirty-rate", type=int, default=2000, metavar="PAGES", help="a second")
    parser.add_argument("--runs", type=count, default=50)
    return parser.parse_args()


@contextmanager
def machine(options: argparse.Namespace) -> Iterator[Qemu]:
    """One that writes."""
    guest = Guest(options.memory >> 20, WORKING, options.dirty_rate)
    with (
        tempfile.TemporaryDirectory(prefix="pageferry-") as folder,
        Qemu(Path(folder), "here", guest) as made,
    ):
        made.wait_up()
        yield made


def measure(pid: int, address: int, pages: int) -> dict[str, float | None]:
    """Milliseconds of one run."""
    times: dict[str, float | None] = {}
    with (
        attach(pid, [(address, pages * PAGE_BYTES)], sandboxed=True) as attached,
        WrittenScan(pid, address, pages) as scan,
    ):
        times["held"] = attached.held_ms
        for name in ("first scan", "scan"):
            began = perf_counter()
            scan.scan()
            times[name] = (perf_counter() - began) * 1000
            sleep(ROUND_S)
    return times


def main() -> int:
    """0: all were attached to."""
    options = arguments()
    with machine(options) as tracked:
        guest = QemuGuest(tracked.qmp)
        (mapping,), pages = guest.arm(), guest.blocks[0].pages
        guest.close()
        pid = tracked.process.pid
        runs = [measure(pid, mapping.address, pages) for _ in range(options.runs)]
    Console(highlight=False).print(spread_table(runs))
    return 0


if __name__ == "__main__":
    sys.exit(main())
