"""A guest that QEMU moves by itself, but for its memory, which the test copies.

Memory is copied after the device state was saved (that writes memory) and before it is loaded.
"""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.pipeline.guests.helpers import wait_until
from tests.qemu.machine import Boots, Qemu, two_machines

CAPABILITIES = ("x-ignore-shared", "late-block-activate")


@contextmanager
def pair(
    folder: Path, guest: Boots, machine: str = "pc", disk: Path | None = None
) -> Iterator[tuple[Qemu, Qemu]]:
    """As `two_machines`, ready to move the guest by themselves."""
    with two_machines(folder, guest, machine=machine, disk=disk) as (here, there):
        for end in (here, there):
            states = [{"capability": name, "state": True} for name in CAPABILITIES]
            end.monitor.ask("migrate-set-capabilities", capabilities=states)
        yield here, there


def saved(here: Qemu) -> bytes:
    """The device state of a machine that is stopped."""
    path = here.folder / "out"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        here.monitor.ask("migrate", uri=f"unix:{path}")
        connection, _ = listener.accept()
        with connection, connection.makefile("rb") as stream:
            return stream.read()


def load(there: Qemu, state: bytes) -> None:
    """The device state into a machine that waits, which then stands still."""
    path = there.folder / "in"
    there.monitor.ask("migrate-incoming", uri=f"unix:{path}")
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(path))
        connection.sendall(state)
    wait_until(lambda: there.status() != "inmigrate")


def copy_memory(here: Qemu, there: Qemu, size_bytes: int = -1) -> None:
    """All of it, or the first bytes, into the file that the other machine has mapped."""
    with here.ram.open("rb") as source, there.ram.open("r+b") as target:
        target.write(source.read(size_bytes))


def move(here: Qemu, there: Qemu) -> int:
    """All of a guest, which then goes on there; the size of its device state."""
    here.monitor.ask("stop")
    state = saved(here)
    copy_memory(here, there)
    load(there, state)
    assert (here.status(), there.status()) == ("postmigrate", "paused")
    there.monitor.ask("cont")
    return len(state)
