"""What both peers share: how a run is asked for and measured, and child processes that end.

A child and everything that it started are gone when the block that started it is left.
"""

import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

RUN_SECONDS = 600
"""A migration of 1 GiB that takes longer is stuck; the slowest on record took 18 s."""

STOP_SECONDS = 10


class RunError(Exception):
    """A run did not do what it was to do; the message is one line."""


class Unavailable(RunError):
    """This machine cannot run it at all; nothing is wrong."""


@dataclass(frozen=True)
class Settings:
    """What every run is given: the image, a folder on tmpfs, and the counts."""

    image: Path
    folder: Path
    level: int
    threads: int
    decompress_threads: int
    compare: bool


@dataclass(frozen=True)
class Measured:
    """One migration: total time less setup time, and what went over the wire."""

    seconds: float
    wire_bytes: int


@contextmanager
def child(
    command: Sequence[str], log: Path, *, cwd: Path | None = None, pass_fds: Sequence[int] = ()
) -> Iterator[subprocess.Popen[bytes]]:
    """Run `command` in a process group of its own, its output in `log`; end the group after."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=cwd,
            pass_fds=pass_fds,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    """Ask it to end, wait, then kill whatever is left of its group."""
    try:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def last_line(log: Path) -> str:
    """The end of what a child said, for an error message."""
    lines = log.read_text(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")


def compare(source: Path, destination: Path) -> None:
    """RunError, with the place, where the two files differ."""
    answer = subprocess.run(
        ["cmp", source, destination], capture_output=True, text=True, check=False
    )
    if answer.returncode:
        raise RunError(f"memory differs: {(answer.stdout + answer.stderr).strip()}")
