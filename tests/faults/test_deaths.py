"""A worker dies or hangs in the middle, and the migration goes on; a guest dies: failed at once."""

import multiprocessing
import os
import re
from pathlib import Path
from signal import SIGKILL, SIGSTOP
from time import sleep

import psutil
import pytest
from structlog.testing import capture_logs

from pipeline.progress import PROGRESS_NS
from pipeline.source.coordinator import Coordinator
from pipeline.source.dispatcher import CREDIT, Dispatcher
from pipeline.source.switch_over import SwitchOver
from tests.faults.leaving import leave, synthetic_guest
from tests.system.migrations import Destination, settings

SLOW = settings(parameters={"max-bandwidth": "4MiB"}, batch_pages=32)
AT_WORK = {
    "compress": r"with frame \d+ of round 1 in hand",
    "decompress": r"(taking frames|reading back), with memory at frame \d+ of round [01]",
}


def strike(name: str, signal: int) -> None:
    """Give the worker of that name the signal."""
    pid = next(p.pid for p in multiprocessing.active_children() if p.name == name)
    assert pid is not None
    os.kill(pid, signal)


class Striking:
    """Gives worker 0 of a stage the signal, once, when it has frames that only it has."""

    def __init__(self, stage: str, signal: int) -> None:
        self._name, self._signal = f"{stage} worker 0", signal
        self._find = self._in_hand if stage == "compress" else self._on_the_way
        self._before: set[int] | None = None
        self.struck = False

    def __call__(self, coordinator: Coordinator) -> None:
        """Look whether it is time."""
        if not self.struck and self._find(coordinator.engine.dispatcher):
            self.struck = True
            strike(self._name, self._signal)

    def _in_hand(self, dispatcher: Dispatcher) -> bool:
        return [worker for worker, _ in dispatcher._in_hand.values()].count(0) == CREDIT

    def _on_the_way(self, dispatcher: Dispatcher) -> bool:
        """It is stopped first, so that what is sent to it after that it never takes."""
        sent = {seq for seq, out in dispatcher._out.items() if out.sent and out.lane == 0}
        if self._before is None and sent:
            self._before = sent
            strike(self._name, SIGSTOP)
        return self._before is not None and not sent <= self._before


@pytest.mark.parametrize("stage", ["compress", "decompress"])
@pytest.mark.parametrize("signal", [SIGKILL, SIGSTOP])
def test_a_worker_dies_or_hangs(folder: Path, stage: str, signal: int) -> None:
    """A frame that is waited for for ever; a page that is lost with a worker; a warning that does
    not say what the worker was doing."""
    there = Destination(settings(), folder)
    with synthetic_guest(SLOW) as guest, capture_logs() as logs:
        here = leave(SLOW, there.uri, guest, on_tick=Striking(stage, signal))
    assert (here.error_desc, there.result().error_desc) == (None, None)
    assert (here.status, there.result().status) == ("completed", "completed")
    assert (here.verified, there.result().self_check) == (True, "clean")
    assert here.redone > 0
    (told,) = (log["event"] for log in logs if log["log_level"] == "warning")
    how = "died, exit code -9" if signal == SIGKILL else "hangs: silent for 3 s"
    doing = AT_WORK[stage]
    assert re.fullmatch(rf"{stage} worker 0 \(pid \d+\) {how}, {doing}; another .*", told), told


def test_the_guest_dies(folder: Path) -> None:
    """A migration that completes without a guest, or fails with a traceback."""

    def kill(coordinator: Coordinator) -> None:
        if coordinator.engine.dispatcher.applied and not guest.is_dead():
            psutil.Process(guest.pid).kill()

    there = Destination(settings(), folder)
    with synthetic_guest(SLOW) as guest:
        here = leave(SLOW, there.uri, guest, on_tick=kill)
        assert (here.status, there.result().status) == ("failed", "failed")
        assert here.error_desc == f"the synthetic guest is gone: process {guest.pid} ended"
        assert here.guest_alive == "none"
        assert f"the source failed: {here.error_desc}" in str(there.result().error_desc)


def test_the_guest_dies_in_the_switch_over(folder: Path) -> None:
    """An error while the guest is taken back, which nobody catches: no result, a destination
    that waits."""
    there = Destination(settings(), folder)
    with synthetic_guest(settings()) as guest:
        stop = guest.stop

        def stop_and_die() -> str:
            state = stop()
            psutil.Process(guest.pid).kill()
            return state

        guest.stop = stop_and_die  # type: ignore[method-assign]
        here = leave(settings(), there.uri, guest)
        assert (here.status, here.guest_alive) == ("failed", "none")
        assert here.error_desc == f"the guest process {guest.pid} died"
        assert "the source failed: the guest process" in str(there.result().error_desc)


def test_a_guest_that_is_sent_may_die(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of it is there, and thrown away because the process that held it has ended."""
    there = Destination(settings(), folder)
    with synthetic_guest(settings()) as guest:
        verify = SwitchOver.verify

        def die_and_verify(steps: SwitchOver) -> None:
            psutil.Process(guest.pid).kill()
            sleep(2 * PROGRESS_NS / 1e9)
            verify(steps)

        monkeypatch.setattr(SwitchOver, "verify", die_and_verify)
        here = leave(settings(), there.uri, guest)
    assert (here.status, here.guest_alive) == ("completed", "destination"), here.error_desc
    assert there.result().self_check == "clean"
