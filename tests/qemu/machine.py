"""A QEMU as its user would start it: memory in a file, a monitor for who migrates it.

A context manager. In the end its process is killed, and its files are removed. One more monitor is
the test's own.
"""

import shutil
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol, Self

from tests.pipeline.guests.helpers import wait_until
from tests.pipeline.monitor.talking import Client
from tests.qemu.serial import Line, Serial

QEMU = "qemu-system-x86_64"
SHM = Path("/dev/shm")
START_S = 10.0
UP_S = 30.0
BEAT_S = 5.0


class Boots(Protocol):
    """A guest that a machine can start."""

    @property
    def mib(self) -> int:
        """The memory that it takes."""

    def boot(self, folder: Path, machine: str) -> list[str]:
        """The options that boot it; files of its own it puts into the machine's `folder`."""


class Qemu:
    """A machine that boots `guest`; it lives in `folder`/`name`."""

    def __init__(
        self,
        folder: Path,
        name: str,
        guest: Boots,
        *,
        incoming: bool = False,
        accel: str = "tcg",
        machine: str = "pc",
        disk: Path | None = None,
        more: Sequence[str] = (),
    ) -> None:
        self.folder = folder / name
        self.qmp = self.folder / "qmp"
        """Where the monitor for others listens."""
        self._guest, self._machine = guest, machine
        self._options = [
            *("-machine", f"{machine},memory-backend=ram", "-accel", accel),
            *(("-S", "-incoming", "defer") if incoming else ()),
            *(() if disk is None else ("-drive", f"if=ide,format=qcow2,file={disk}")),
            *more,
        ]

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.folder.mkdir()
            stack.callback(shutil.rmtree, self.folder)
            self.ram = Path(stack.enter_context(TemporaryDirectory(prefix="t-", dir=SHM)), "ram")
            with self.ram.open("xb") as file:
                file.truncate(self._guest.mib << 20)
            self._start(stack)
            self._stack = stack.pop_all()
        return self

    def _start(self, stack: ExitStack) -> None:
        own, words = self.folder / "test.qmp", self.folder / "words"
        with words.open("wb") as stderr:
            self.process = subprocess.Popen(
                self._command(own), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=stderr
            )
        assert self.process.stdout is not None
        self.serial = Serial(self.process.stdout)
        stack.callback(self._end)
        wait_until(lambda: greets(own) or self.process.poll() is not None, START_S)
        assert self.process.poll() is None, words.read_text()
        self.monitor = stack.enter_context(Client(own))

    def _command(self, own: Path) -> list[str]:
        memory = f"memory-backend-file,id=ram,size={self._guest.mib}M,mem-path={self.ram},share=on"
        monitors = [("-qmp", f"unix:{path},server=on,wait=off") for path in (self.qmp, own)]
        return [
            *(QEMU, "-nodefaults", "-no-user-config", "-display", "none"),
            *("-m", f"{self._guest.mib}M", "-object", memory, "-serial", "file:/dev/stdout"),
            *(word for words in monitors for word in words),
            *self._guest.boot(self.folder, self._machine),
            *self._options,
        ]

    def _end(self) -> None:
        self.process.kill()
        self.process.wait()
        self.serial.close()

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def status(self) -> str:
        """Its run state, by QEMU's word."""
        return str(self.monitor.ask("query-status")["status"])

    def wait_up(self, within_s: float = UP_S) -> None:
        """Until its guest has said that it is up."""
        self.serial.wait("up", lambda: self.serial.is_up, within_s)

    def wait_beats(self, beats: int = 1, within_s: float = BEAT_S) -> None:
        """Until its guest has said so many more heartbeats."""
        until = len(self.serial.beats) + beats
        self.serial.wait(f"{beats} heartbeats", lambda: len(self.serial.beats) >= until, within_s)

    def counter(self) -> int:
        """What its guest's newest heartbeat counts; -1 before the first one."""
        return self.serial.counter

    def lines(self) -> list[Line]:
        """All that its guest has said by now."""
        return list(self.serial.lines)

    def bad(self) -> list[str]:
        """What its guest has found damaged by now."""
        return list(self.serial.bad)

    def gap(self, there: "Qemu") -> tuple[float, int]:
        """Seconds between the last heartbeat here and the first there, and what was counted."""
        return self.serial.gap(there.serial)


@contextmanager
def two_machines(
    folder: Path, guest: Boots, *, machine: str = "pc", disk: Path | None = None
) -> Iterator[tuple[Qemu, Qemu]]:
    """One that boots the guest, and one that waits for it; both have the same disk."""
    with (
        Qemu(folder, "here", guest, machine=machine, disk=disk) as here,
        Qemu(folder, "there", guest, machine=machine, disk=disk, incoming=True) as there,
    ):
        yield here, there


def greets(path: Path) -> bool:
    """Whether a monitor there has a machine by now; it listens before it has."""
    with socket.socket(socket.AF_UNIX) as probe, suppress(OSError):
        probe.settimeout(START_S)
        probe.connect(str(path))
        return probe.recv(1) != b""
    return False
