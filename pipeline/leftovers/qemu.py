"""How what a session did to a QEMU is undone, and what one says of a start, by its monitor."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import assert_never

from pipeline.guests.qemu import state
from pipeline.guests.qemu.arrival import end
from pipeline.guests.qemu.attached import let_run
from pipeline.guests.qemu.machine import run_state
from pipeline.guests.qemu.monitor import QemuMonitor
from pipeline.guests.qemu.settings import put_back
from pipeline.records.record import AnyQemuEffect, ChangedQemu, LoadedQemu, StoppedQemu
from protocol.errors import GuestError

HAS_STARTED = ("running", "suspended")
"""A machine that sleeps is woken before it leaves, so that one that sleeps here has run."""
NOT_STARTED = ("inmigrate", "paused", "prelaunch")
"""The run states of a machine that nobody has started since it took a state."""


def undo_qemu(effect: AnyQemuEffect) -> None:
    """Put it right; nothing, where the QEMU has ended. GuestError where it does not answer."""
    if not effect.qemu.is_alive:
        return
    with _monitor(effect) as monitor:
        match effect:
            case ChangedQemu():
                if not _runs(monitor):  # while one runs, a migration of its own is not ours
                    state.cancel(monitor)
                put_back(monitor, effect)
            case StoppedQemu():
                let_run(monitor)
            case LoadedQemu():
                if not _runs(monitor):
                    end(monitor)
            case _:
                assert_never(effect)


def has_started(loaded: LoadedQemu) -> bool:
    """Whether a machine that has taken a guest's state was started.

    GuestError where it does not answer, or has come to something else since.
    """
    if not loaded.qemu.is_alive:
        return False
    with _monitor(loaded) as monitor:
        found = run_state(monitor)
    if found not in (*HAS_STARTED, *NOT_STARTED):
        raise GuestError(
            f"the QEMU at {loaded.qmp} is {found}: whether it has run nobody can say; where it has,"
            " let it run (`cont`), else end it, and ask again"
        )
    return found in HAS_STARTED


def _runs(monitor: QemuMonitor) -> bool:
    return run_state(monitor) == "running"


@contextmanager
def _monitor(effect: AnyQemuEffect) -> Iterator[QemuMonitor]:
    monitor = QemuMonitor(Path(effect.qmp))
    try:
        if monitor.process != effect.qemu:
            raise GuestError(f"process {effect.qemu.pid} is not the QEMU at {effect.qmp} any more")
        yield monitor
    finally:
        monitor.close()
