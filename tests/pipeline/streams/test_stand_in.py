"""A process that stands for an end: what is left of one that did not come to be."""

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path

import pytest

from pipeline.streams.leash import stand
from pipeline.streams.stand_in import StandIn
from protocol.errors import WorkerError
from workers.memory import PassedFd

Settings = tuple[Path, PassedFd]


def nothing(settings: Settings) -> None:
    """A process that ends at once."""
    folder, passed = settings
    stand(passed, folder, lambda _: None)


def made(folder: Path, passed: PassedFd) -> Settings:
    """Its settings."""
    return folder, passed


@contextmanager
def few_descriptors(most: int) -> Iterator[None]:
    """While this lasts only those below `most` can be had."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def start_with(most: int) -> str:
    """How it is told that it cannot be started with so few descriptors; "" where it can."""
    try:
        with few_descriptors(most):
            stand_in = StandIn("it", nothing, made)
    except WorkerError as error:
        return str(error)
    assert stand_in.has_ended(5)
    stand_in.close()
    return ""


def test_nothing_is_left_where_descriptors_run_out(folder: Path) -> None:
    """A folder or a process that stays, however few there are."""
    free = os.dup(0)
    os.close(free)
    told = list(takewhile(bool, (start_with(free + most) for most in range(200))))
    assert all("Too many open files" in words for words in told)
    assert 1 < len(told) < 200, "none has failed, or all"
    assert folder.exists()


def test_nothing_is_left_where_somebody_interrupts(folder: Path) -> None:
    """A folder that stays when the user does not wait any longer."""

    def interrupt(folder: Path, passed: PassedFd) -> Settings:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        StandIn("it", nothing, interrupt)
    assert folder.exists()
