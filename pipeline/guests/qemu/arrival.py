"""A QEMU that waits to be filled: its memory by us, its device state by itself."""

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from time import monotonic, sleep

import structlog

from pipeline.guests.qemu import state
from pipeline.guests.qemu.attached import AttachedQemu
from pipeline.guests.qemu.machine import TOUCHED, destination_obstacles
from pipeline.guests.qemu.monitor import QemuMonitor, QemuRefused
from pipeline.guests.qemu.ram import why_no_room
from pipeline.guests.qemu.settings import Settings
from pipeline.records.record import AnyEffect, LoadedQemu
from protocol.control import BlockInfo
from protocol.devices import Section
from protocol.errors import GuestError
from protocol.limits import PAGE_BYTES

END_S = 5.0
ANNOUNCE = {"initial": 50, "max": 550, "rounds": 5, "step": 100}
"""QEMU's own defaults, in ms, for telling switches where the guest is now."""
_WORDS_BYTES = 2000


class QemuArrival(AttachedQemu):
    """An ArrivingGuest: the machine whose monitor listens at `qmp`, started with `-incoming defer`.

    `keep` is told what is about to be done to it. One that has taken a device state and was not
    started is ended by `close`: nobody else may start it.
    """

    checks_itself = False

    def __init__(self, qmp: Path, keep: Callable[[AnyEffect], None]) -> None:
        self._keep = keep
        self._loaded = self._started = False
        self._arrived_as = ""
        super().__init__(qmp, destination_obstacles, writable=True)

    def expect(self, machine: str, blocks: Sequence[BlockInfo]) -> None:
        """GuestError where another machine comes than waits here, or has no room; blocks as they
        come, from now."""
        if machine != self.machine:
            raise GuestError(f"{self.name} is {self.machine}; {machine} comes")
        ours = {block.name: block for block in self.blocks}
        for block in blocks:
            pages = ours[block.name].pages if block.name in ours else 0
            if pages != block.pages:
                raise GuestError(
                    f"{self.name} has {pages * PAGE_BYTES} bytes of memory {block.name},"
                    f" {block.pages * PAGE_BYTES} come"
                )
        if len(blocks) != len(ours):
            raise GuestError(f"{self.name} has memory that does not come: {', '.join(ours)}")
        self.blocks = [ours[block.name] for block in blocks]
        if (reason := why_no_room(self.blocks)) is not None:
            raise GuestError(f"{self.name}: {reason}")

    def load_devices(self, sections: list[Section]) -> None:
        """Have it take the state; it stands still."""
        if [(one.name, one.version) for one in sections] != [(state.SECTION, state.VERSION)]:
            raise GuestError("what came is no device state of a QEMU")
        settings, words = Settings(self._monitor), _Words(self.process.pid)
        self._keep(settings.before)
        self._keep(LoadedQemu(settings.before.qemu, settings.before.qmp))
        try:
            settings.change()
            self._loaded = True
            self._load(sections[0].payload, words)
            settings.put_back()
        finally:
            words.close()
        self._arrived_as = self.run_state()
        self._monitor.events()
        if self._arrived_as == "running":
            raise GuestError("the machine has started by itself: -S is needed")

    def _load(self, payload: bytes, words: "_Words") -> None:
        try:
            state.load(self._monitor, payload)
        except GuestError as error:
            said = words.said()
            if self.is_dead():
                told = said or "its standard error says why"
                raise GuestError(f"{self.name} ended while it loaded the state: {told}") from None
            why = f"{error}; it says: {said}" if said else error
            raise GuestError(f"the device state was not loaded: {why}") from None

    def begin(self, session: str, *, run: bool) -> bool:
        """Have it run, or leave it as it is, for good."""
        if self.run_state() != self._arrived_as or TOUCHED & self._monitor.events():
            raise GuestError("somebody has let the machine run, or reset it, before it was given")
        if run:
            self._cont()
        self._started = True
        return run

    def _cont(self) -> None:
        """Have it run. Once it was told to, what becomes of it is its own: GuestError only where it
        was not, as far as can be seen."""
        try:
            self._monitor.ask("cont")
        except QemuRefused:
            raise
        except GuestError:
            if self.run_state() == self._arrived_as:
                raise

    def announce(self) -> None:
        """Have its network cards tell where it is."""
        self._monitor.ask("announce-self", **ANNOUNCE)

    def self_check(self, meanwhile: Callable[[], object] = lambda: None) -> str | None:
        """Nothing that could be asked."""
        return None

    def close(self) -> None:
        """Let go of it; end one that has a state and was not started. Idempotent."""
        if self._loaded and not self._started:
            self._end()
            self._loaded = False
        self._let_go()

    def _end(self) -> None:
        log = structlog.get_logger()
        try:
            end(self._monitor)
            log.warning(f"{self.name} has taken a guest's state, and was ended: start it anew")
        except GuestError as error:  # it stays on record for who comes later
            log.warning(str(error))


def end(monitor: QemuMonitor) -> None:
    """Have it end, and wait for that; GuestError for one that hangs."""
    with suppress(GuestError):
        monitor.ask("quit")
    until = monotonic() + END_S
    while monitor.process.is_alive:
        if monotonic() > until:
            raise GuestError(
                f"QEMU {monitor.process.pid} has a guest's state and does not end: end it, and do"
                " not let it run"
            )
        sleep(0.01)


class _Words:
    """What a QEMU says on its standard error, where that is a file, from now on."""

    def __init__(self, pid: int) -> None:
        self._fd = -1
        with suppress(OSError):
            path = Path(f"/proc/{pid}/fd/2")
            if path.is_file():
                self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                os.lseek(self._fd, 0, os.SEEK_END)

    def said(self) -> str:
        """What it has said, as one line."""
        if self._fd < 0:
            return ""
        words = os.read(self._fd, _WORDS_BYTES).decode(errors="replace")
        return "; ".join(filter(None, map(str.strip, words.splitlines())))

    def close(self) -> None:
        """Listen no more."""
        if self._fd >= 0:
            os.close(self._fd)
