"""Many small migrations, each with a fault of some kind at some moment, all from one seed.

An end or a guest that dies or hangs is a cell of the matrix; what strikes workers, or is asked
for by a user, strikes both ends of this process at any time.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from signal import SIGKILL, SIGSTOP
from time import monotonic

import psutil
import pytest

from pipeline.config.model import Config
from pipeline.guests.synthetic import SyntheticGuest
from pipeline.result import Result
from pipeline.source.departures import make_guest
from protocol.errors import MigrationError
from protocol.status import Status
from tests.faults.matrix import ending
from tests.faults.test_matrix import CELLS, Cell
from tests.leaks import nothing_left
from tests.system.migrations import Destination, migrate, nobody, settings

FAULTS = int(os.environ.get("PAGEFERRY_FAULTS", "20"))
SEED = int(os.environ.get("PAGEFERRY_SEED", "1"))
AT_ONCE = 3
OF_ENDS = 0.1
"""Of all faults; each takes some twenty times as long as one of the others."""
LONGEST_S = 0.5
"""When the last one strikes; a migration takes 0.3 to 0.7 s."""
ENDS = [cell for cell in CELLS if "worker" not in cell.victim and cell.victim != "fork server"]
SLOW = settings(parameters={"max-bandwidth": "24MiB"})

Strike = Callable[[set[psutil.Process], SyntheticGuest], None]


def kill_a_worker(number: int, signal: int) -> Strike:
    """One of what the fork server of this process has started since."""

    def strike(workers: set[psutil.Process], _: SyntheticGuest) -> None:
        found = sorted(workers, key=lambda worker: worker.pid)
        if found:
            found[number % len(found)].send_signal(signal)

    return strike


def kill_the_guest(_: set[psutil.Process], guest: SyntheticGuest) -> None:
    """As the kernel does that is out of memory."""
    psutil.Process(guest.pid).kill()


def fail(_: set[psutil.Process], __: SyntheticGuest) -> None:
    """Something of ours goes wrong."""
    raise MigrationError("a fault of the test")


def strike_of(random: Random) -> Strike:
    """Some fault."""
    return random.choice(
        [
            *(kill_a_worker(random.randrange(4), SIGKILL) for _ in range(6)),
            kill_a_worker(random.randrange(4), SIGSTOP),
            kill_the_guest,
            fail,
            fail,
        ]
    )


def struck(folder: Path, seed: int) -> None:
    """One migration in this process; AssertionError for a guest that is not where it is said."""
    random = Random(seed)
    strike, due_s = strike_of(random), random.uniform(0, LONGEST_S)
    config = Config.model_validate(SLOW)
    guest = make_guest(config)
    assert isinstance(guest, SyntheticGuest)
    before, began = children(), monotonic()
    done: list[bool] = []

    def watch() -> None:
        if not done and monotonic() - began > due_s:
            done.append(True)
            strike(workers(before), guest)

    try:
        there = Destination(SLOW, folder)
        here = migrate(config, there.uri, nobody, guest=guest, watch=watch)
        check(here, there.result(), guest)
    finally:
        guest.close()


def check(here: Result, there: Result, guest: SyntheticGuest) -> None:
    """One of them has the guest, and its memory is right; or it is said to be dead."""
    if here.status is Status.COMPLETED:
        assert (here.verified, there.status, there.self_check) == (True, "completed", "clean")
        assert guest.is_dead() or guest.run_state() == "gone"
        return
    assert (here.status, there.status) == ("failed", "failed")
    assert here.guest_alive == ("none" if guest.is_dead() else "source")
    if not guest.is_dead():
        assert (guest.run_state(), guest.self_check()) == ("running", None)


def children() -> set[psutil.Process]:
    """All below this process."""
    return set(psutil.Process().children(recursive=True))


def workers(before: set[psutil.Process]) -> set[psutil.Process]:
    """What the fork server of this process has started since."""
    return {one for one in children() - before if "forkserver" in " ".join(one.cmdline())}


SEEDS = range(SEED, SEED + FAULTS)


def is_of_an_end(seed: int) -> bool:
    """Whether the fault of this seed strikes an end, or a guest of its own."""
    return Random(seed).random() < OF_ENDS


def cell_of(seed: int) -> Cell:
    """Which cell of the matrix it is then."""
    return Random(seed + 1).choice(ENDS)


@pytest.mark.timeout(7200)
def test_faults_within_both_ends() -> None:
    """A guest that is lost, doubled or wrong after a fault that nobody thought of."""
    for seed in SEEDS:
        if not is_of_an_end(seed):
            with nothing_left() as folder:
                struck(folder, seed)


@pytest.mark.timeout(7200)
def test_faults_of_ends() -> None:
    """The same, where an end dies or hangs, or a guest that lives on its own."""
    cells = {seed: cell_of(seed) for seed in SEEDS if is_of_an_end(seed)}
    with nothing_left() as folder, ThreadPoolExecutor(AT_ONCE) as pool:
        found = {
            seed: pool.submit(ending, folder / str(seed), cell.victim, cell.point, cell.signal)
            for seed, cell in cells.items()
        }
        endings = {seed: future.result() for seed, future in found.items()}
    assert endings == {seed: cell.ending for seed, cell in cells.items()}
