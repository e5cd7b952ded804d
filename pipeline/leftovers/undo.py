"""How what a session did outside of its own processes is undone by somebody else.

Each is harmless where there is nothing to undo any more, as long as nobody else has moved the
guest away since.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import assert_never

from pipeline.guests import wire
from pipeline.guests.conversation import close_all
from pipeline.guests.memory import remove_file
from pipeline.guests.process import GuestProcess
from pipeline.guests.qemu.processor_time import remove_group
from pipeline.records.processes import Process
from pipeline.records.record import (
    AnyEffect,
    BoundSockets,
    ChangedQemu,
    LoadedQemu,
    MadeFile,
    SlowedThreads,
    StoppedGuest,
    StoppedQemu,
    StoppedWriter,
)
from pipeline.unix_sockets import remove_stale
from protocol.errors import GuestError


def undo(effect: AnyEffect) -> None:
    """Put it right; GuestError where the guest is there and does not answer."""
    match effect:
        case StoppedWriter(writer):
            _let_go_on(writer)
        case StoppedGuest(guest, socket):
            if guest.is_alive:
                ask_guest(guest, socket, wire.Resume())
        case MadeFile():
            remove_file(effect)
        case BoundSockets(paths):
            for path in paths:
                remove_stale(Path(path))
        case SlowedThreads(groups):
            for group in groups:
                remove_group(Path(group))
        case ChangedQemu() | StoppedQemu() | LoadedQemu():
            from pipeline.leftovers.qemu import undo_qemu  # its library is an extra

            undo_qemu(effect)
        case _:
            assert_never(effect)


def _let_go_on(writer: Process) -> None:
    if not writer.is_alive:
        return
    with suppress(ProcessLookupError):
        pidfd = os.pidfd_open(writer.pid)
        try:
            if writer.is_alive:  # asked behind the descriptor: no other process can be meant
                signal.pidfd_send_signal(pidfd, signal.SIGCONT)
        finally:
            os.close(pidfd)


def ask_guest(who: Process, socket: str, request: wire.Request) -> None:
    """Have the guest `who` at `socket` do something; GuestError where it does not."""
    with _attached(who, socket) as guest:
        guest.talk.ask(request, wire.Done)


def guest_session(who: Process | None, socket: str) -> str:
    """The session in which the guest `who` arrived, None for whoever is there; empty where it did
    not. GuestError where it does not say."""
    with _attached(who, socket) as guest:
        described, fd = guest.talk.describe()
        close_all([fd])
        return described.session


@contextmanager
def _attached(who: Process | None, socket: str) -> Iterator[GuestProcess]:
    """The guest at `socket`; GuestError where another one listens there now."""
    guest = GuestProcess.attach(Path(socket))
    try:
        if who is not None and guest.process != who:
            raise GuestError(f"process {who.pid} is not the guest at {socket} any more")
        yield guest
    finally:
        guest.close()
