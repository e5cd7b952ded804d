"""The device state of a QEMU, by its own migration through a pipe: one opaque section."""

import os
import select
from contextlib import suppress
from threading import Thread
from time import monotonic, sleep
from typing import BinaryIO

from pipeline.guests.qemu.machine import own_migration
from pipeline.guests.qemu.monitor import QemuMonitor
from protocol.errors import GuestError
from protocol.limits import MAX_DEVICE_BYTES

SECTION = "qemu"
VERSION = 1
SAVE_S = 30.0
LOAD_S = 30.0
"""288 kB take 10 ms; video memory and ROMs that are not shared come on top."""
_PIECE = 1 << 20
_NAME = "pageferry"
_LOOK_S = 0.002


def save(monitor: QemuMonitor) -> bytes:
    """What its migration writes, while it is stopped; GuestError where that fails, and it is under
    way no more, where QEMU answers."""
    try:
        with _start_saving(monitor) as pipe:
            state = _read_all(pipe, monotonic() + SAVE_S)
            finish(monitor, SAVE_S)
    except GuestError:
        with suppress(GuestError):  # the first one is the reason
            cancel(monitor)  # after the pipe's end: QEMU waits for nobody to read it
        raise
    return state


def _start_saving(monitor: QemuMonitor) -> BinaryIO:
    """What the state is read from."""
    reads, writes = os.pipe2(os.O_CLOEXEC)
    pipe = os.fdopen(reads, "rb", 0)
    try:
        try:
            monitor.give(_NAME, writes)
        finally:
            os.close(writes)
        monitor.ask("migrate", uri=f"fd:{_NAME}")
    except GuestError:
        pipe.close()
        with suppress(GuestError):
            monitor.ask("closefd", fdname=_NAME)
        raise
    return pipe


def _read_all(pipe: BinaryIO, until: float) -> bytes:
    pieces: list[bytes] = []
    size = 0
    while piece := _read(pipe, until):
        pieces.append(piece)
        size += len(piece)
        if size > MAX_DEVICE_BYTES:
            raise GuestError(
                f"the device state takes more than {MAX_DEVICE_BYTES} bytes: memory that is not"
                " shared is in it"
            )
    return b"".join(pieces)


def _read(pipe: BinaryIO, until: float) -> bytes:
    poll = select.poll()
    poll.register(pipe, select.POLLIN)
    if not poll.poll(max(0, until - monotonic()) * 1000):
        raise GuestError(f"QEMU has not saved its device state within {SAVE_S:g} s")
    return pipe.read(_PIECE)


def load(monitor: QemuMonitor, state: bytes) -> None:
    """Have a QEMU that waits take the state; it stands still then. GuestError with QEMU's reason
    where it does not."""
    reads, writes = os.pipe2(os.O_CLOEXEC)
    try:
        monitor.give(_NAME, reads)
    except BaseException:
        os.close(writes)
        raise
    finally:
        os.close(reads)
    feeder = Thread(target=_write_all, args=(writes, state), daemon=True)
    feeder.start()
    monitor.ask("migrate-incoming", uri=f"fd:{_NAME}")
    finish(monitor, LOAD_S)
    feeder.join(LOAD_S)  # after an error it ends with QEMU
    if feeder.is_alive():
        raise GuestError("QEMU says that it has loaded its device state, and has not read it")


def _write_all(writes: int, state: bytes) -> None:
    with suppress(OSError), open(writes, "wb", buffering=0) as pipe:
        view = memoryview(state)
        while view:
            view = view[pipe.write(view) :]


def finish(monitor: QemuMonitor, within_s: float) -> None:
    """Wait until its migration is over; GuestError where it has not completed."""
    until = monotonic() + within_s
    while (own := own_migration(monitor)).status != "completed":
        if own.status in ("failed", "cancelled"):
            raise GuestError(f"QEMU: {own.error_desc or own.status}")
        if monotonic() > until:
            raise GuestError(f"QEMU's own migration takes longer than {within_s:g} s")
        sleep(_LOOK_S)


def cancel(monitor: QemuMonitor) -> None:
    """End a migration of its own that is under way, and wait for that."""
    until = monotonic() + SAVE_S
    while own_migration(monitor).is_under_way:
        monitor.ask("migrate_cancel")
        if monotonic() > until:
            raise GuestError("QEMU does not end its own migration")
        sleep(_LOOK_S)
