"""Every codec, and `auto`, over a link between two machines that is shaped to some bandwidth.

    python -m benchmarks.thin_link [--mbit 200] [--memory 256MiB] [--repeat 3] [--json PATH]

The machines are network namespaces (root, iproute2), the link is shaped by `tc tbf`; 0 leaves it as
it is. Both ends are on the same cores. The time is total time less setup time; `ratio` the bytes of
the pages that were sent with their content by what went over the wire.
"""

import argparse
import subprocess
import sys
import tempfile
from collections import defaultdict
from operator import truediv
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

from benchmarks.arguments import count, memory_bytes
from benchmarks.image import build_image
from benchmarks.report import machine, write_figures
from pipeline.result import Result, ratio
from tests.leaks import nothing_left
from tests.system.migrations import Command, settings
from tests.system.network import THERE, Network, network

CODECS = ("none", "lz4", "zstd", "zlib", "auto")
RUN_SECONDS = 600.0
PORT = 4444


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Codecs over a link of some bandwidth")
    parser.add_argument("--mbit", type=int, default=200, help="of the link; 0: not shaped")
    parser.add_argument("--memory", type=memory_bytes, default="256MiB", metavar="SIZE")
    parser.add_argument("--repeat", type=count, default=3)
    parser.add_argument("--json", type=Path, metavar="PATH", help="write every figure there")
    return parser.parse_args()


def shape(link: Network, mbit: int) -> None:
    """Let so much through, from here to there."""
    how = ("root", "tbf", "rate", f"{mbit}mbit", "burst", "256kb", "latency", "50ms")
    words = ("tc", "qdisc", "add", "dev", link.here.device, *how)
    subprocess.run([*link.here.inside, *words], check=True)


def migrate(codec: str, image: Path, link: Network) -> Result:
    """One migration of the image; the source's result."""
    config = settings(
        {"kind": "file", "path": str(image)},
        codec=codec,
        verify="frames",
        batch_pages=256,
        security={"insecure": True},
    )
    with nothing_left() as folder:
        options = ("--uri", f"tcp:{THERE}:{PORT}")
        waits = {**config, "destination": {"path": str(image.with_name("arrived"))}}
        with Command(folder, "incoming", *options, config=waits, inside=link.there.inside) as there:
            there.wait_for("listening")
            with Command(
                folder, "migrate", *options, config=config, inside=link.here.inside
            ) as here:
                assert here.code(RUN_SECONDS) == 0, here.words
                assert there.code() == 0, there.words
                return here.result()


def measure(options: argparse.Namespace, image: Path) -> dict[str, list[Result]]:
    """Every codec once a round."""
    found: dict[str, list[Result]] = defaultdict(list)
    with network() as link:
        if options.mbit:
            shape(link, options.mbit)
        for round_no in range(1, options.repeat + 1):
            for codec in CODECS:
                found[codec].append(migrate(codec, image, link))
                image.with_name("arrived").unlink()
                print(f"round {round_no}: {codec} {seconds(found[codec][-1]):.2f} s", flush=True)
    return found


def seconds(result: Result) -> float:
    """Total time less setup time."""
    return ((result.total_time or 0) - (result.setup_time or 0)) / 1e3


def table(found: dict[str, list[Result]]) -> Table:
    """A row for each codec."""
    made = Table("codec", "s (median)", "times as fast as none", "ratio", "rounds, s")
    for codec, results in found.items():
        rounds = list(map(seconds, results))
        faster = median(map(truediv, map(seconds, found["none"]), rounds))
        shrank = median(ratio(result) or 0.0 for result in results)
        told = " ".join(f"{one:.2f}" for one in rounds)
        made.add_row(codec, f"{median(rounds):.2f}", f"{faster:.2f}", f"{shrank:.2f}", told)
    return made


def main() -> int:
    """0: all were measured."""
    options, about = arguments(), machine(None)
    with tempfile.TemporaryDirectory(prefix="pageferry-", dir="/dev/shm") as folder:
        image = Path(folder, "image")
        build_image(image, options.memory)
        found = measure(options, image)
    Console(highlight=False).print(table(found))
    rounds = {codec: list(map(seconds, results)) for codec, results in found.items()}
    write_figures(options.json, {"machine": about, "mbit": options.mbit, "seconds": rounds})
    return 0


if __name__ == "__main__":
    sys.exit(main())
