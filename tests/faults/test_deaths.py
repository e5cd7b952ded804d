"""A worker dies or hangs in the middle, and the migration goes on; a guest dies: failed at once."""

from collections.abc import Callable
from pathlib import Path
from signal import SIGKILL, SIGSTOP

import psutil
import pytest

from pipeline.config.model import Config
from pipeline.guests.synthetic import SyntheticGuest
from pipeline.progress import Progress
from pipeline.result import Result
from pipeline.source.command import make_guest, migrate
from tests.system.migrations import Destination, settings

SLOW = settings(parameters={"max-bandwidth": "4MiB"})


def children() -> set[psutil.Process]:
    return set(psutil.Process().children(recursive=True))


def killed_in_the_first_round(
    folder: Path,
    guest: SyntheticGuest,
    victim: Callable[[], psutil.Process],
    signal: int = SIGKILL,
) -> tuple[Result, Result]:
    """The results of both ends when `victim` gets the signal once pages travel."""
    killed = False

    def observe(progress: Progress) -> None:
        nonlocal killed
        if progress.round_no and progress.transferred and not killed:
            killed = True
            victim().send_signal(signal)

    there = Destination(settings(), folder)
    here = migrate(Config.model_validate(SLOW), there.uri, observe, guest=guest)
    return here, there.result()


@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize("signal", [SIGKILL, SIGSTOP])
def test_a_worker_dies_or_hangs(folder: Path, number: int, signal: int) -> None:
    """A frame that is waited for for ever; a page that is lost with a worker."""
    guest = make_guest(Config.model_validate(SLOW))
    assert isinstance(guest, SyntheticGuest)
    before = children()
    try:
        here, there = killed_in_the_first_round(
            folder, guest, lambda: sorted(workers(before), key=lambda one: one.pid)[number], signal
        )
        assert (here.error_desc, there.error_desc) == (None, None)
        assert (here.status, there.status) == ("completed", "completed")
        assert (here.verified, there.self_check) == (True, "clean")
        held_back = signal == SIGKILL and number >= 2  # by the limit: nothing was under way to it
        assert here.redone > 0 or held_back
    finally:
        guest.close()


def workers(before: set[psutil.Process]) -> set[psutil.Process]:
    """What the fork server started since: two compress and two decompress workers."""
    found = {one for one in children() - before if "forkserver" in " ".join(one.cmdline())}
    assert len(found) == 4
    return found


def test_the_guest_dies(folder: Path) -> None:
    """A migration that completes without a guest, or fails with a traceback."""
    guest = make_guest(Config.model_validate(SLOW))
    assert isinstance(guest, SyntheticGuest)
    try:
        here, there = killed_in_the_first_round(folder, guest, lambda: psutil.Process(guest.pid))
        assert (here.status, there.status) == ("failed", "failed")
        assert here.error_desc == f"the synthetic guest is gone: process {guest.pid} ended"
        assert here.guest_alive == "none"
        assert f"the source failed: {here.error_desc}" in str(there.error_desc)
    finally:
        guest.close()


def test_the_guest_dies_in_the_switch_over(folder: Path) -> None:
    """An error while the guest is taken back, which nobody catches: no result, a destination
    that waits."""
    guest = make_guest(Config.model_validate(settings()))
    assert isinstance(guest, SyntheticGuest)
    stop = guest.stop

    def stop_and_die() -> str:
        state = stop()
        psutil.Process(guest.pid).kill()
        return state

    guest.stop = stop_and_die  # type: ignore[method-assign]
    there = Destination(settings(), folder)
    try:
        here = migrate(Config.model_validate(settings()), there.uri, lambda _: None, guest=guest)
        assert (here.status, here.guest_alive) == ("failed", "none")
        assert here.error_desc == f"the guest process {guest.pid} died"
        assert "the source failed: the guest process" in str(there.result().error_desc)
    finally:
        guest.close()
