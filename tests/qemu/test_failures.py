"""Whatever fails, the machine runs on at the source, with its settings and nothing attached."""

import signal
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from pipeline.leftovers.cleanup import cleanup
from tests.qemu.pairs import Pair, pair
from tests.qemu.sector import Guest
from tests.system.migrations import Command

SLOW = {"max-bandwidth": "128KiB"}


def failed(folder: Path, machines: Pair, then: Callable[[Command], None]) -> str:
    """Migrate, slowly, do `then` in the first round; what is said of the failure."""
    with Command(folder, "run", config=machines.config(parameters=SLOW)) as run:
        run.wait_for("round 1")
        then(run)
        assert run.code() == 1, run.words
        machines.assert_stayed()
        return run.words.splitlines()[-1]


def test_the_destination_is_killed_during_rounds(folder: Path) -> None:
    """A source that goes on sending to a machine that has gone, until it is too late."""
    with pair(folder) as machines:
        words = failed(folder, machines, lambda _: machines.there.process.kill())
        assert "the guest that is being filled has ended" in words


def test_another_machine_waits(folder: Path) -> None:
    """A guest whose devices are not there, found out when it stands still."""
    with pair(folder, machine="q35") as machines:
        with Command(folder, "run", config=machines.config()) as run:
            assert run.code() == 1
            assert "pc-q35" in run.words
            assert "round 1" not in run.words
        machines.assert_stayed()


def test_other_memory_waits(folder: Path) -> None:
    """A block that is too small, found out by a write beyond its end."""
    with pair(folder, guest=Guest(mib=32)) as machines:
        with Command(folder, "run", config=machines.config()) as run:
            assert run.code() == 1
            assert "67108864 come" in run.words
        machines.assert_stayed()


def test_it_is_cancelled(folder: Path) -> None:
    """A machine that is left stopped, or watched."""
    with pair(folder) as machines:
        with Command(folder, "run", config=machines.config(parameters=SLOW)) as run:
            run.wait_for("round 1")
            run.process.send_signal(signal.SIGINT)
            assert run.code() == 130, run.words
        machines.assert_stayed()
        assert machines.there.status() == "inmigrate"


@pytest.mark.parametrize("seed", range(3))
def test_pageferry_is_killed(folder: Path, seed: int) -> None:
    """A machine that stands still for ever, or whose next save leaves out its memory."""
    random = Random(seed)
    with pair(folder) as machines:
        with Command(folder, "run", config=machines.config()) as run:
            run.wait_for("setup")
            wait = random.uniform(0, 0.4)
            try:
                run.process.wait(wait)
            except Exception:
                run.process.kill()
        cleanup()
        machines.assert_stayed()
