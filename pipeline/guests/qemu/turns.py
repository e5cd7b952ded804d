"""A machine is slowed down by turns: it is stopped, and let go on, by a thread of its own.

Where its processors' time cannot be limited. What it takes is the same; a machine feels each
turn, though, and QEMU writes out its disks' caches at each stop. It lets nobody go on but who
stands still by its own hand: not one that has stopped for an error, or was shut down.
"""

from threading import Event, Thread

from pipeline.guests.qemu.machine import run_state
from pipeline.guests.qemu.monitor import QemuMonitor
from pipeline.records.record import AnyEffect, StoppedQemu
from protocol.errors import GuestError

PERIOD_S = 0.2
"""Of which it runs the share that it is left, 2 ms at least; stop and cont take 1 ms each."""


class Turns:
    """A Throttle for the machine of `monitor`."""

    how = "stop and cont"

    def __init__(self, monitor: QemuMonitor) -> None:
        self._monitor = monitor
        self._percent = 0
        self._end = Event()
        self._thread: Thread | None = None
        self._stands = False
        self._error: GuestError | None = None

    @property
    def stands(self) -> bool:
        """Whether it stands still by our hand, and is about to go on."""
        return self._stands

    def effects(self) -> tuple[AnyEffect, ...]:
        """It may be stopped when we end."""
        return (StoppedQemu(self._monitor.process, str(self._monitor.path.absolute())),)

    def take(self, percent: int) -> None:
        """From the next turn on, if it runs; GuestError where the last one has failed."""
        self._percent = percent
        if self._thread is not None and not self._thread.is_alive():
            self._join()
        if self._error is not None:
            raise self._error
        if self._thread is None and run_state(self._monitor) == "running":
            self._end.clear()
            self._thread = Thread(target=self._take_turns, name="turns", daemon=True)
            self._thread.start()

    def _take_turns(self) -> None:
        """Until told, or the machine does anything else than run."""
        try:
            while not self._end.wait(PERIOD_S * (100 - self._percent) / 100):
                if run_state(self._monitor) != "running":
                    return
                self._stands = True
                self._monitor.ask("stop")
                if self._end.wait(PERIOD_S * self._percent / 100):
                    return
                if run_state(self._monitor) == "paused":
                    self._monitor.ask("cont")
                self._stands = False
        except GuestError as error:
            self._error = error

    def hold(self) -> None:
        """No more turns: whether it stands still or runs is the caller's from now on."""
        self._join()
        self._stands = False

    def release(self) -> None:
        """No more turns, and it runs."""
        self._join()
        if self._stands:
            self._monitor.ask("cont")
            self._stands = False

    def _join(self) -> None:
        if self._thread is not None:
            self._end.set()
            self._thread.join()
            self._thread = None
