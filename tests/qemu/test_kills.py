"""pageferry is killed at any moment: after cleanup, or resolve, the machine runs on one side."""

import os
from contextlib import ExitStack
from pathlib import Path
from random import Random
from subprocess import TimeoutExpired

import pytest

from pipeline.leftovers.cleanup import cleanup
from pipeline.leftovers.resolve import resolve_destination, resolve_source
from pipeline.records.record import encode_record
from pipeline.records.store import state_folder
from tests.leaks import processes_of
from tests.pipeline.guests.helpers import wait_until
from tests.pipeline.injection.victims import needs_uffd
from tests.qemu.machine import Qemu
from tests.qemu.pairs import GUEST, Pair, is_dead, needs_qemu
from tests.system.migrations import Command

KILLS = int(os.environ.get("PAGEFERRY_KILLS", "3"))
SEED = int(os.environ.get("PAGEFERRY_SEED", "1"))
LONGEST_S = 0.9
"""When the last one is killed; a migration takes 0.6 to 0.8 s."""


def settled(folder: Path) -> None:
    """Put right what the dead command has left."""
    wait_until(lambda: all(one.name().startswith("qemu") for one in processes_of(folder)))
    _, whole = cleanup()
    if whole:
        return
    (source,) = state_folder().glob("*-source.jsonl")
    session = source.name.split("-")[0]
    closed = folder / "closed"
    closed.write_bytes(encode_record(resolve_destination(session)))
    resolve_source(session, closed)
    closed.unlink()


def killed(folder: Path, machines: Pair, after_s: float) -> bool:
    """Kill the command in the middle; whether the machine has moved."""
    with Command(folder, "run", config=machines.config(tracker="uffd")) as run:
        try:
            run.process.wait(after_s)
        except TimeoutExpired:
            run.process.kill()
            run.process.wait()
        settled(folder)
    moved = not is_dead(machines.there) and machines.there.status() == "running"
    if moved:
        assert machines.here.status() != "running"
        machines.assert_moved(10)
    else:
        machines.assert_stayed()
    return moved


@needs_qemu
@needs_uffd
@pytest.mark.more
@pytest.mark.timeout(60 + 10 * KILLS)
def test_it_is_killed_at_any_moment(folder: Path) -> None:
    """A machine that stands still for ever, runs twice, or whose next save leaves out memory."""
    here: Qemu | None = None
    with ExitStack() as stack:
        for seed in range(SEED, SEED + KILLS):
            if here is None:
                here = stack.enter_context(Qemu(folder, f"here{seed}", GUEST))
            with Qemu(folder, f"there{seed}", GUEST, incoming=True) as there:
                after_s = Random(seed).uniform(0.1, LONGEST_S)
                if killed(folder, Pair(here, there), after_s):
                    here = None
