"""Encrypted against plain links: one memory image over loopback tcp, in turn, zlib.

    python -m benchmarks.encrypted [--memory 512MiB] [--repeat 5] [--least 0.85]

Both ends are on this machine, which so does the work of two. The time is total time less setup
time. The ratio is the median over the rounds of what the two reached in the same round. Exit
code 1 where it is below `--least`.
"""

import argparse
import os
import socket
import sys
import tempfile
from pathlib import Path
from statistics import median

from benchmarks.against_qemu import warm_up
from benchmarks.arguments import count, memory_bytes
from benchmarks.image import build_image
from benchmarks.pageferry_peer import configuration, run
from benchmarks.running import Settings
from pipeline.config.keys import PUBLIC, make_keys


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Migrate one image encrypted and plain")
    parser.add_argument("--memory", type=memory_bytes, default="512MiB", metavar="SIZE")
    parser.add_argument("--repeat", type=count, default=5, help="rounds (default 5)")
    parser.add_argument("--codec", default="zlib")
    parser.add_argument("--least", type=float, default=0.85, help="the ratio that is wanted")
    parser.add_argument("--dir", type=Path, default=Path("/dev/shm"), help="a folder on tmpfs")
    return parser.parse_args()


def free_port() -> int:
    """A port that nobody listens at just now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def rate(codec: str, settings: Settings, keys: Path | None) -> float:
    """MiB of guest memory a second of one migration, with both ends of the same keys."""
    arrived = settings.folder / "arrived"
    config = configuration(codec, settings, arrived)
    config["uri"] = f"tcp:127.0.0.1:{free_port()}"
    if keys is not None:
        config["security"] = {"keys": str(keys), "peers": [str(keys / PUBLIC)]}
    try:
        answer = run(config, settings.folder)
    finally:
        arrived.unlink(missing_ok=True)
    milliseconds = answer["total-time"] - answer["setup-time"]
    return settings.image.stat().st_size / (1 << 20) / milliseconds * 1000


def benchmark(options: argparse.Namespace, folder: Path) -> float:
    """Measure and print every round; the median of the ratios."""
    settings = Settings(folder / "image", folder, 1, 2, 2, compare=False)
    keys = folder / "keys"
    make_keys(keys)
    build_image(settings.image, options.memory)
    warm_up(settings)
    ratios = []
    for round_no in range(1, options.repeat + 1):
        order = (None, keys) if round_no % 2 else (keys, None)
        rates = {place: rate(options.codec, settings, place) for place in order}
        ratios.append(rates[keys] / rates[None])
        print(
            f"round {round_no}: encrypted {rates[keys]:.0f}, plain {rates[None]:.0f} MiB/s,"
            f" ratio {ratios[-1]:.2f}",
            flush=True,
        )
    return median(ratios)


def main() -> int:
    """0 fast enough; 1 not."""
    options = arguments()
    print(f"load {os.getloadavg()[0]:.2f}, {len(os.sched_getaffinity(0))} cores")
    with tempfile.TemporaryDirectory(prefix="pageferry-", dir=options.dir) as folder:
        ratio = benchmark(options, Path(folder))
    print(f"ratio {ratio:.2f} (median), wanted {options.least}")
    return int(ratio < options.least)


if __name__ == "__main__":
    sys.exit(main())
