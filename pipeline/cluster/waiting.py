"""What waits at a destination to be filled: started, and asked whether the guest has come."""

import os
import socket
from contextlib import suppress
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import msgspec

from pipeline.cluster.folder import EndFolder
from pipeline.cluster.launching import LOOK_S, reap, start_for_itself
from pipeline.leftovers.undo import guest_session
from pipeline.monitor.client import MonitorClient
from pipeline.unix_sockets import peer_of
from protocol.errors import MigrationError

CONNECT_S = 1.0
"""One that hangs may have its backlog full."""
HAS_COME = {"running": True, "inmigrate": False, "prelaunch": False}
"""By the run state of a QEMU; of others nobody can say."""


def start_what_waits(
    command: tuple[str, ...], answers_at: str | None, within_s: float, folder: EndFolder
) -> None:
    """MigrationError where it ends or is not there in time, or its socket is somebody else's. One
    that ends with 0 has made a daemon of itself."""
    if answers_at is not None and _owner(answers_at) is not None:
        raise MigrationError(f"somebody listens at {answers_at} already")
    try:
        code = start_for_itself(command, folder.words, folder.note_waiting)
    except OSError as error:
        raise MigrationError(f"destination.start: {command[0]}: {error.strerror}") from None
    until = monotonic() + within_s
    while answers_at is not None and (owner := _owner(answers_at)) is None:
        reap()
        if folder.is_forbidden:
            raise MigrationError("it was given up")
        if code():
            said = last_line(folder.words)
            raise MigrationError(f"start {command[0]}: exit code {code()}: {said}")
        if monotonic() > until:
            raise MigrationError(f"nothing listens at {answers_at} in {within_s:g} s")
        sleep(LOOK_S)
    if answers_at is not None and owner not in (0, os.geteuid()):
        raise MigrationError(f"user {owner} listens at {answers_at}: not what was started")


def last_line(log: Path) -> str:
    """Of what a command has said."""
    return (log.read_text(errors="replace").splitlines() or ["no word of it"])[-1]


def _owner(path: str) -> int | None:
    """The user who listens there, None where nobody does; a guest's socket keeps the borders of
    messages, a QEMU's does not."""
    for kind in (socket.SOCK_SEQPACKET, socket.SOCK_STREAM):
        with socket.socket(socket.AF_UNIX, kind) as client, suppress(OSError):
            client.settimeout(CONNECT_S)
            client.connect(path)
            return peer_of(client).user
    return None


def has_come(folder: EndFolder) -> bool:
    """Whether the guest is in what waited for it, by what that says itself. MigrationError where
    nobody can say."""
    try:
        config = msgspec.json.decode(folder.config.read_bytes(), type=dict[str, Any])
    except OSError:
        return False  # no end was ever begun
    destination = config.get("destination") or {}
    guest, machine = destination.get("socket"), destination.get("qmp")
    if not (path := guest or machine):
        raise MigrationError("whether its memory came nobody can say: the destination left no word")
    if _owner(path) is None:
        return False
    return bool(guest_session(None, path)) if guest else _machine_has_come(Path(path))


def _machine_has_come(path: Path) -> bool:
    try:
        with MonitorClient(path) as client:
            told = msgspec.convert(client.execute("query-status"), dict[str, Any])
    except (OSError, ValueError) as error:
        raise MigrationError(f"{path}: {error}") from None
    found = str(told.get("status"))
    if found not in HAS_COME:
        raise MigrationError(f"the QEMU at {path} is {found}: whether it has run nobody can say")
    return HAS_COME[found]
