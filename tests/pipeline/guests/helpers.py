"""Guests in this process, small ones, and the processes that tests need beside them."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pipeline.guests import selfcheck
from pipeline.guests.memory import GuestMemory, anonymous_memory
from pipeline.guests.workload import Runner, Workload
from protocol.limits import PAGE_BYTES

PAGES = 2100
"""More than two pieces of 1024 pages."""

_NOBODY = 65534

UNIFORM = Workload("uniform", 600 * PAGE_BYTES, 40 << 20, 64, "mixed", 7)


@dataclass
class Filled:
    """A runner on memory of its own, and the digest of what it leaves alone."""

    runner: Runner
    digest: int

    def check(self) -> str | None:
        """The self-check."""
        return selfcheck.check(self.runner, self.digest)

    def write(self, writes: int, seed: int = 0) -> None:
        """That many random writes."""
        pages = np.random.default_rng(seed).integers(0, self.runner.layout.working_pages, writes)
        self.runner.write(pages)


@contextlib.contextmanager
def memory_of(pages: int) -> Iterator[GuestMemory]:
    """An anonymous memory of `pages` pages."""
    fd = anonymous_memory(pages * PAGE_BYTES)
    try:
        yield GuestMemory(fd, pages)
    finally:
        os.close(fd)


@contextlib.contextmanager
def filled(workload: Workload = UNIFORM, pages: int = PAGES, **changes: object) -> Iterator[Filled]:
    """A guest in this process, freshly filled, with `changes` to its workload."""
    with memory_of(pages) as memory:
        runner = Runner(replace(workload, **changes), memory)  # type: ignore[arg-type]
        yield Filled(runner, selfcheck.fill(runner))


@contextlib.contextmanager
def python(code: str, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A process that runs `code`, and the first line that it said."""
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[3],
    )
    with process:
        try:
            assert process.stdout is not None
            yield process, process.stdout.readline()
        finally:
            process.kill()


def as_another_user(ask: Callable[[], object]) -> str:
    """What `ask` answers, as text, to a user who is not root."""
    reads, writes = os.pipe()
    child = os.fork()
    if child == 0:
        if os.getuid() == 0:
            os.setuid(_NOBODY)
        os.write(writes, str(ask()).encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(writes)
    with os.fdopen(reads) as pipe:
        return pipe.read()


def wait_until(true: Callable[[], bool], within_s: float = 5.0) -> None:
    """Look every ms until `true`; AssertionError at the deadline."""
    until = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < until, "the deadline passed"
        time.sleep(0.001)


def copy_memory(source: int, destination: int, size_bytes: int) -> None:
    """The bytes of one memory file into another."""
    for offset in range(0, size_bytes, 4 << 20):
        os.pwrite(destination, os.pread(source, 4 << 20, offset), offset)


def open_files() -> set[str]:
    """The descriptors of this process."""
    return {fd.name for fd in Path("/proc/self/fd").iterdir()}
