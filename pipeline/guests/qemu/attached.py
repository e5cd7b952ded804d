"""What both ends of a QEMU have in common: its monitor, its memory, and whether it runs."""

import os
from collections.abc import Callable
from pathlib import Path
from time import monotonic, sleep

from pipeline.file_users import Access, users_of
from pipeline.guests.base import GuestBlock, GuestStatistics
from pipeline.guests.conversation import close_all
from pipeline.guests.memory import lock
from pipeline.guests.qemu.machine import machine_of, obstacles, run_state
from pipeline.guests.qemu.monitor import QemuMonitor
from pipeline.guests.qemu.ram import open_block, why_hidden
from pipeline.records.processes import Process
from protocol.errors import ConfigError, GuestError, NoSuchGuest

STATE_S = 5.0
LOCK_S = 2.0
_LOOK_S = 0.001


class AttachedQemu:
    """The machine whose monitor listens at `qmp`, with its memory open.

    NoSuchGuest, with all that is in the way, `others` told too, where it cannot take part.
    """

    kind = "qemu"

    def __init__(
        self, qmp: Path, others: Callable[[QemuMonitor], list[str]], *, writable: bool
    ) -> None:
        self.name = f"the machine at {qmp}"
        self.blocks: list[GuestBlock] = []
        self._monitor = QemuMonitor(qmp)
        try:
            self.machine = self._open(others, writable=writable)
        except BaseException:
            self._let_go()
            raise

    def _open(self, others: Callable[[QemuMonitor], list[str]], *, writable: bool) -> str:
        """Open its memory; what it is."""
        if (hidden := why_hidden(self.process.pid)) is not None:
            raise NoSuchGuest(f"{self.name} cannot take part: {hidden}")
        found = machine_of(self._monitor)
        in_the_way = [*obstacles(self._monitor, found), *others(self._monitor)]
        if in_the_way:
            raise NoSuchGuest(f"{self.name} cannot take part: {'; '.join(in_the_way)}")
        for backend in found.memory:
            self.blocks.append(open_block(backend, self.process.pid, writable=writable))
            _lock(self.blocks[-1], Path(backend.path))
            if writable:
                self._check_alone(self.blocks[-1])
        return found.kind

    def _check_alone(self, block: GuestBlock) -> None:
        """NoSuchGuest where what is about to be written is another process's memory, too."""
        for user in users_of(block.fd, {os.getpid(), self.process.pid}):
            if user.mapped is Access.WRITE:
                raise NoSuchGuest(
                    f"memory {block.name} is process {user.pid}'s, too: each machine needs a file"
                    " of its own"
                )

    @property
    def process(self) -> Process:
        """The QEMU."""
        return self._monitor.process

    def is_dead(self) -> bool:
        """Whether the QEMU has ended."""
        return not self.process.is_alive

    def run_state(self) -> str:
        """As QEMU has it."""
        return run_state(self._monitor)

    def pause(self) -> None:
        """Stop, until `go_on`."""
        self._monitor.ask("stop")

    def go_on(self) -> None:
        """Let the machine run."""
        let_run(self._monitor)

    def statistics(self) -> GuestStatistics:
        """It tells nothing."""
        return GuestStatistics()

    def _let_go(self) -> None:
        close_all(block.fd for block in self.blocks)
        self.blocks = []
        self._monitor.close()


def _lock(block: GuestBlock, path: Path) -> None:
    """As `lock`; the workers of an end that was killed have it for a moment longer."""
    until = monotonic() + LOCK_S
    while True:
        try:
            return lock(block.fd, path)
        except ConfigError as error:
            if monotonic() > until:
                raise NoSuchGuest(
                    f"memory {block.name}: {error}, or it is another machine's memory, too"
                ) from None
        sleep(_LOOK_S)


def let_run(monitor: QemuMonitor) -> None:
    """Have it run, whatever kept it; GuestError where it does not."""
    monitor.ask("cont")
    until = monotonic() + STATE_S
    while (found := run_state(monitor)) != "running":
        if monotonic() > until:
            raise GuestError(f"the machine was told to run and is {found}")
        sleep(_LOOK_S)
