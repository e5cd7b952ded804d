"""Disks for tests: images, and how a configuration lists them."""

import os
from pathlib import Path

import numpy as np

from protocol.limits import PAGE_BYTES
from tests.system.migrations import MIB

IDLE = {"kind": "synthetic", "memory": "4MiB", "workload": {"pattern": "idle"}}


def image(path: Path, size_bytes: int, seed: int = 1) -> Path:
    """Noise, and holes."""
    generator = np.random.default_rng(seed)
    with path.open("wb") as file:
        file.truncate(size_bytes)
        for start in range(0, size_bytes, 4 * MIB):
            os.pwrite(file.fileno(), generator.bytes(min(3 * MIB, size_bytes - start)), start)
    return path


def at(folder: Path, number: int = 0, **keys: Path) -> dict[str, str]:
    """A disk of the folder, as a configuration has it."""
    here, there = folder / f"disk{number}", folder / f"there{number}"
    made = {"path": here, "destination": there, **keys}
    return {name: str(path) for name, path in made.items()}


def differ(path: Path, base: Path, share: float) -> int:
    """Make a disk of a base, in which that share of pages is another; how many."""
    path.write_bytes(base.read_bytes())
    pages = path.stat().st_size // PAGE_BYTES
    chosen = np.random.default_rng(3).choice(pages, int(pages * share), replace=False)
    with path.open("r+b") as file:
        for page in chosen:
            os.pwrite(file.fileno(), os.urandom(PAGE_BYTES), int(page) * PAGE_BYTES)
    return len(chosen)
