"""A memory image that compresses as guests do: file pages, zero pages and noise in runs.

The same seed over the same files gives the same image. Zero pages are written, not left
as holes: the memory of a guest that has run for a while is allocated.
"""

import itertools
import os
import random
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import NamedTuple

from protocol.limits import PAGE_BYTES

ZERO_PERCENT = 30
RANDOM_PERCENT = 5
LONGEST_RUN_PAGES = 512
"""Run lengths are log-uniform below it: median 22 pages, mean 82."""

FILE_BYTES_TAKEN = 8 << 20
"""Of one file at most, so that no single large one decides how the image compresses."""


class Kind(Enum):
    """What the pages of a run hold."""

    ZERO = "zero"
    RANDOM = "random"
    FILE = "file"


class Run(NamedTuple):
    """`pages` pages of one kind, one after the other."""

    kind: Kind
    pages: int


def plan_runs(pages: int, rng: random.Random) -> list[Run]:
    """Runs in the order of the image; the shares of the kinds are exact to a page."""
    zero, noise = pages * ZERO_PERCENT // 100, pages * RANDOM_PERCENT // 100
    shares = {Kind.ZERO: zero, Kind.RANDOM: noise, Kind.FILE: pages - zero - noise}
    runs = [Run(kind, n) for kind, share in shares.items() for n in cut(share, rng)]
    rng.shuffle(runs)
    return runs


def cut(pages: int, rng: random.Random) -> Iterator[int]:
    """Lengths that add up to `pages`."""
    while pages:
        length = min(pages, int(LONGEST_RUN_PAGES ** rng.random()))
        yield length
        pages -= length


def usable_files(root: Path) -> list[Path]:
    """Readable regular files of a page or more below `root`, sorted; no link is followed."""
    found = (
        os.path.join(folder, name)  # noqa: PTH118 - 50,000 Path objects take a second
        for folder, _, names in os.walk(root)
        for name in names
    )
    return [
        Path(path)
        for path in sorted(found)
        if not os.path.islink(path)  # noqa: PTH114
        and os.path.getsize(path) >= PAGE_BYTES  # noqa: PTH202
        and os.access(path, os.R_OK)
    ]


class FilePages:
    """An endless stream of whole pages out of files, in an order that the seed decides."""

    def __init__(self, files: list[Path], rng: random.Random) -> None:
        if not files:
            raise ValueError("no readable file of a page or more to build the image from")
        self._files = itertools.cycle(rng.sample(files, len(files)))
        self._pending = bytearray()

    def take(self, pages: int) -> bytes:
        """The next `pages` pages."""
        wanted = pages * PAGE_BYTES
        while len(self._pending) < wanted:
            self._pending += self._next_file()
        taken = bytes(self._pending[:wanted])
        del self._pending[:wanted]
        return taken

    def _next_file(self) -> bytes:
        with next(self._files).open("rb") as file:
            content = file.read(FILE_BYTES_TAKEN)
        return content[: len(content) // PAGE_BYTES * PAGE_BYTES]


def build_image(path: Path, image_bytes: int, seed: int = 1, root: Path = Path("/usr")) -> None:
    """Write a new file of `image_bytes`, a multiple of the page size, from the files of `root`.

    FileExistsError where `path` exists, ValueError where `root` holds nothing usable.
    """
    rng = random.Random(seed)
    stream = FilePages(usable_files(root), rng)
    with path.open("xb") as image:
        for run in plan_runs(image_bytes // PAGE_BYTES, rng):
            match run.kind:
                case Kind.ZERO:
                    image.write(bytes(run.pages * PAGE_BYTES))
                case Kind.RANDOM:
                    image.write(rng.randbytes(run.pages * PAGE_BYTES))
                case Kind.FILE:
                    image.write(stream.take(run.pages))
