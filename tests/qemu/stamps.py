"""The memory of a guest of `sector.py`, seen from outside: in the file that it is in."""

import os
from pathlib import Path

import numpy as np

from tests.qemu.sector import FIRST_PAGE, Guest

PAGE_BYTES = 4096
WORDS = PAGE_BYTES // 4


def stamps(ram: Path, guest: Guest) -> np.ndarray:
    """Of each page from the first: number and generation, at its start and at its end."""
    words = np.memmap(ram, np.uint32, "r", shape=(guest.pages, WORDS))
    return words[FIRST_PAGE:, [0, 1, WORDS - 2, WORDS - 1]].copy()


def overwritten(ram: Path, guest: Guest) -> int:
    """How many pages of its working set it has overwritten by now."""
    words = np.memmap(ram, np.uint32, "r", shape=(guest.pages, WORDS))
    return int(words[guest.working, 1].astype(np.int64).sum()) - len(guest.working)


def damage(ram: Path, page: int) -> None:
    """Change the last byte of a page."""
    with ram.open("r+b") as file:
        last = page * PAGE_BYTES + PAGE_BYTES - 1
        (old,) = os.pread(file.fileno(), 1, last)
        os.pwrite(file.fileno(), bytes([old ^ 1]), last)
