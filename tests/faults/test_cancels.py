"""Many small migrations, each cancelled at some moment: it ends the same way at both ends."""

import os
from pathlib import Path
from random import Random
from time import monotonic

import pytest

from pipeline.config.model import Config
from pipeline.guests.synthetic import SyntheticGuest
from pipeline.source.departures import make_guest
from pipeline.source.outgoing import Outgoing
from protocol.status import Status
from tests.leaks import nothing_left
from tests.system.migrations import Destination, nobody, settings
from workers.fork_server import warm_up

CANCELS = int(os.environ.get("PAGEFERRY_CANCELS", "10"))
SEED = int(os.environ.get("PAGEFERRY_SEED", "1"))
LONGEST_S = 0.6
"""When the last one is cancelled; a migration takes 0.3 to 0.5 s."""
CANCELLED_S = 1.0


def cancelled(folder: Path, seed: int) -> Status:
    """Migrate, and cancel; how it ended. AssertionError where both ends do not agree."""
    random = Random(seed)
    pause = random.random() < 0.3
    config = settings(capabilities={"pause-before-switchover": pause})
    due = monotonic() + random.uniform(0, LONGEST_S)
    there = Destination(config, folder)
    guest = make_guest(Config.model_validate(config))
    assert isinstance(guest, SyntheticGuest)
    outgoing = Outgoing(Config.model_validate(config), guest, nobody)
    asked: list[float] = []

    def watch() -> None:
        if not asked and monotonic() > due:
            asked.append(monotonic())
            outgoing.cancel()

    outgoing.watch = watch
    ended: list[float] = []
    outgoing.status.notify(
        lambda status: ended.append(monotonic()) if status is Status.CANCELLED else None
    )
    try:
        outgoing.begin()
        here = outgoing.migrate(there.uri)
        result = there.result()
        assert here.status == result.status
        alive = (here.guest_alive, result.guest_alive, guest.run_state())
        if here.status is Status.COMPLETED:
            assert (alive, result.self_check) == (("destination", "destination", "gone"), "clean")
        else:
            assert here.status is Status.CANCELLED, here.error_desc
            assert alive == ("source", "source", "running")
            assert ended[0] - asked[0] < CANCELLED_S
        return here.status
    finally:
        guest.close()


@pytest.mark.timeout(1800)
def test_a_cancel_ends_both_ends_alike() -> None:
    """A guest that runs twice, or nowhere, after a cancel that came at the wrong moment."""
    warm_up()
    ends = set()
    for seed in range(SEED, SEED + CANCELS):
        with nothing_left() as folder:
            ends.add(cancelled(folder, seed))
    assert Status.CANCELLED in ends
