"""Migrations over byte streams for tests: the commands of both ends, descriptors between them."""

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shlex import join

import msgspec

from pipeline.result import Result

PIPES = 100
"""Descriptors that nobody else uses: the pair that an end is given begins here."""


def destination(result: Path, *options: str, uri: str = "fd:0") -> str:
    """The destination as words for a shell, with its result in a file."""
    words = [sys.executable, "-m", "pipeline", "incoming", "--uri", uri, "--json", str(result)]
    return join([*words, *options])


def result_in(path: Path) -> Result:
    """The result in a file, which is removed."""
    result = msgspec.json.decode(path.read_bytes(), type=Result)
    path.unlink()
    return result


@contextmanager
def socket_pair() -> Iterator[tuple[list[int], list[int]]]:
    """A descriptor for each end, of one connection."""
    ends = socket.socketpair()
    try:
        yield [ends[0].fileno()], [ends[1].fileno()]
    finally:
        for end in ends:
            end.close()


@contextmanager
def two_pipes() -> Iterator[tuple[list[int], list[int]]]:
    """Two descriptors for each end: one to read, the next one to write."""
    there, back = os.pipe(), os.pipe()
    numbers = list(range(PIPES, PIPES + 4))
    for fd, number in zip((back[0], there[1], there[0], back[1]), numbers, strict=True):
        os.dup2(fd, number)
        os.close(fd)
    try:
        yield numbers[:2], numbers[2:]
    finally:
        for number in numbers:
            os.close(number)
