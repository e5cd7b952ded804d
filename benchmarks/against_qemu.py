"""pageferry against QEMU: one memory image, moved by both in turn, on the same two cores.

    python -m benchmarks.against_qemu [--repeat 3] [--only NAME ...] [--json PATH]

Both ends are on this machine, over local sockets; both destinations are fresh files on
tmpfs. The time is total time less setup time, the throughput guest bytes over it. A ratio
is the median over the rounds of what the two reached in the same round, so that a machine
that is slower for a while slows both.
"""

import argparse
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from benchmarks import codec_alone, pageferry_peer, qemu_peer
from benchmarks.arguments import MIB, count, memory_bytes
from benchmarks.image import build_image
from benchmarks.report import Results, as_json, machine, print_report, write_figures
from benchmarks.running import Measured, RunError, Settings, Unavailable

CORES = 2
IMAGES_HELD = 3
"""At once on tmpfs: the image, QEMU's copy of it, and what arrives."""

ORDER = (
    *("qemu-plain", "qemu-multifd-none", "pageferry-none", "pageferry-auto", "pageferry-lz4"),
    "qemu-compress",
    *("pageferry-zlib", "qemu-multifd-zlib", "codec-zlib"),
    *("codec-zstd", "pageferry-zstd", "qemu-multifd-zstd"),
)
"""In every round; those that are held against each other follow each other."""


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Migrate one memory image with pageferry and QEMU")
    parser.add_argument("--memory", type=memory_bytes, default="1GiB", metavar="SIZE")
    parser.add_argument("--repeat", type=count, default=3, help="rounds (default 3)")
    parser.add_argument(
        "--only", nargs="+", choices=ORDER, default=ORDER, metavar="NAME", help=", ".join(ORDER)
    )
    parser.add_argument("--level", type=int, default=1)
    parser.add_argument("--threads", type=count, default=2, help="compress threads and channels")
    parser.add_argument("--decompress-threads", type=count, default=2)
    parser.add_argument("--dir", type=Path, default=Path("/dev/shm"), help="a folder on tmpfs")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write every figure there")
    parser.add_argument("--no-compare", action="store_true", help="do not compare memory after")
    return parser.parse_args()


def runners(settings: Settings, qemu: str | None) -> Mapping[str, Callable[[], Measured]]:
    """Everything that this machine can run, by name."""
    ours = {
        f"pageferry-{codec}": partial(pageferry_peer.migrate, codec, settings)
        for codec in pageferry_peer.CODECS
    }
    ours |= {
        f"codec-{name}": partial(codec_alone.measure, name, settings) for name in codec_alone.CODECS
    }
    if qemu is None:
        return ours
    variants = qemu_peer.variants(settings)
    return ours | {
        name: partial(qemu_peer.migrate, variant, settings) for name, variant in variants.items()
    }


def measure(names: list[str], settings: Settings, qemu: str | None, repeat: int) -> Results:
    """Every name once a round; one that fails is not tried again."""
    results = Results(settings.image.stat().st_size)
    known = runners(settings, qemu)
    for round_no in range(1, repeat + 1):
        for name in (name for name in names if name in known and name not in results.failed):
            try:
                run = known[name]()
            except RunError as error:
                results.failed[name] = str(error)
                results.wrong |= not isinstance(error, Unavailable)
                continue
            results.add(name, run)
            print(f"round {round_no}: {name} {results.rates(name)[-1]:.0f} MiB/s", flush=True)
    return results


def warm_up(settings: Settings) -> None:
    """Use the memory of every run once.

    In a virtual machine the first touch of memory goes to its host: the first run of a
    series reached 228 MiB/s, the same one later 385 to 596.
    """
    copies = [settings.folder / f"warm-up-{n}" for n in range(1, IMAGES_HELD)]
    for copy in copies:
        shutil.copyfile(settings.image, copy)
    for copy in copies:
        copy.unlink()


def benchmark(options: argparse.Namespace, folder: Path) -> int:
    """Build, measure, print; the exit code."""
    settings = Settings(
        image=folder / "image",
        folder=folder,
        level=options.level,
        threads=options.threads,
        decompress_threads=options.decompress_threads,
        compare=not options.no_compare,
    )
    qemu = qemu_peer.version()
    about = machine(qemu)
    build_image(settings.image, options.memory)
    warm_up(settings)
    results = measure(options.only, settings, qemu, options.repeat)
    print_report(results, about)
    write_figures(options.json, as_json(results, about))
    return int(results.wrong)


def main() -> int:
    """0 all ran, or could not here; 1 a run failed; 130 interrupted."""
    options = arguments()
    free = shutil.disk_usage(options.dir).free
    if free < IMAGES_HELD * options.memory:
        print(f"{options.dir} has {free // MIB} MiB free; three images are held", file=sys.stderr)
        return 2
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    try:
        with tempfile.TemporaryDirectory(prefix="pageferry-", dir=options.dir) as folder:
            return benchmark(options, Path(folder))
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
