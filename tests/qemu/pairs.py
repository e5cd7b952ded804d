"""Two machines that a test moves a guest between, and what they have to be like afterwards."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.pipeline.guests.helpers import wait_until
from tests.qemu.machine import QEMU, Qemu
from tests.qemu.sector import Guest
from tests.system.migrations import settings

KVM = "/dev/kvm"
GUEST = Guest(mib=64, working=range(1024, 2048), dirty_rate=2000, tick_ms=5)
needs_qemu = pytest.mark.skipif(shutil.which(QEMU) is None, reason=f"{QEMU} is not installed")
needs_kvm = pytest.mark.skipif(not os.access(KVM, os.R_OK | os.W_OK), reason=f"no {KVM} here")
SETTINGS = ("query-migrate-capabilities", "query-migrate-parameters")


class Pair:
    """One that boots a guest, one that waits for it; their settings are what they were before."""

    def __init__(self, here: Qemu, there: Qemu) -> None:
        self.here, self.there = here, there
        here.wait_up()
        here.wait_beats(5)
        self._before = {end: settings_of(end) for end in (here, there)}

    def config(self, **keys: Any) -> dict[str, Any]:  # noqa: ANN401 - as YAML
        """From the one to the other."""
        return config_of(self.here, self.there, **keys)

    def assert_moved(self, ticks: int) -> None:
        """It goes on there where it was here, and finds nothing damaged in so many ticks."""
        self.there.wait_beats(ticks)
        assert self.there.status() == "running"
        assert self.here.gap(self.there)[1] == 1
        self._assert_untouched()

    def assert_stayed(self) -> None:
        """It goes on here as if nobody had come."""
        wait_until(lambda: self.here.status() == "running")
        self.here.wait_beats(10)
        assert is_dead(self.there) or self.there.status() != "running"
        self._assert_untouched()

    def _assert_untouched(self) -> None:
        assert not self.here.bad() + self.there.bad()
        for end in (self.here, self.there):
            if not is_dead(end):
                assert settings_of(end) == self._before[end]
                assert not is_watched(end.process.pid)


def config_of(here: Qemu, there: Qemu, **keys: Any) -> dict[str, Any]:  # noqa: ANN401 - as YAML
    """A configuration that moves the guest of one machine into another."""
    made = settings({"kind": "qemu", "qmp": str(here.qmp)}, **keys)
    return {**made, "destination": {"qmp": str(there.qmp)}}


def is_dead(machine: Qemu) -> bool:
    """Whether the machine has ended."""
    return machine.process.poll() is not None


def settings_of(machine: Qemu) -> list[Any]:
    """Those of its own migration."""
    return [machine.monitor.ask(command) for command in SETTINGS]


def is_watched(pid: int) -> bool:
    """Whether somebody traces a process, or it has a userfaultfd."""
    traced = "TracerPid:\t0\n" not in Path(f"/proc/{pid}/status").read_text()
    return traced or any("userfaultfd" in str(fd.readlink()) for fd in _descriptors(pid))


def _descriptors(pid: int) -> list[Path]:
    return list(Path(f"/proc/{pid}/fd").iterdir())


@contextmanager
def pair(
    folder: Path,
    *,
    guest: Guest = GUEST,
    machine: str = "pc",
    disk: Path | None = None,
    accel: str = "tcg",
) -> Iterator[Pair]:
    """Two machines with one disk; the one that waits is a `machine`, and has room for `guest`."""
    with (
        Qemu(folder, "here", GUEST, disk=disk, accel=accel) as one,
        Qemu(
            folder, "there", guest, machine=machine, disk=disk, accel=accel, incoming=True
        ) as other,
    ):
        if accel == "kvm":
            skip_unless_up(one)
        yield Pair(one, other)


def skip_unless_up(machine: Qemu) -> None:
    """A nested KVM does not bring every guest up: one in eight on the machine of these tests."""
    try:
        machine.wait_up()
    except AssertionError as error:
        pytest.skip(f"under {KVM}: {error}")
