"""A synthetic guest as a process that outlives its migrations: `pageferry guest`.

Answers one client at a time on a UNIX socket; another one is told so. A client that goes away
changes nothing about a guest that has arrived; one that was being filled waits anew, with fresh
memory, so that nobody can start what a vanished migration has left.
"""

import os
import select
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from time import sleep

import msgspec
import structlog

from pipeline.guests import wire
from pipeline.guests.machine import Machine, serve_one
from pipeline.records.store import LOCK_SECONDS, locked_folder
from pipeline.unix_sockets import check_free
from protocol.errors import ConfigError

ACCEPT_AGAIN_S = 0.05
REFUSAL_S = 0.1
"""For one that connects and asks nothing; the guest stands still meanwhile."""


class GuestHost:
    """The guest that `make` makes, and the socket at `path`; owned by the thread that serves.

    ConfigError where the socket cannot be had, MigrationError where somebody hangs who is about
    to have one in that folder.
    """

    def __init__(self, path: Path, make: Callable[[], Machine]) -> None:
        self._path = path
        self._make = make
        self._listener = _listener(path)
        self._inode = path.lstat().st_ino
        try:
            self._machine = make()
        except BaseException:
            path.unlink()
            self._listener.close()
            raise
        self._client: socket.socket | None = None
        self._wake_up = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._poll = select.poll()
        self._poll.register(self._listener, select.POLLIN)
        self._poll.register(self._wake_up, select.POLLIN)
        self._ended = False

    @property
    def state(self) -> wire.State:
        """Whether the guest runs, or why not."""
        return self._machine.state

    def end(self) -> None:
        """Let `serve` return; for a signal's handler."""
        os.eventfd_write(self._wake_up, 1)
        self._ended = True

    def serve(self) -> None:
        """Be a guest until `end`, or until a client says quit."""
        while not self._ended:
            ready = dict(self._poll.poll(self._machine.run()))
            if self._client is not None and self._client.fileno() in ready:
                self._hear(self._client)  # before another one: it may be its end
            elif self._listener.fileno() in ready:
                self._accept()

    def _accept(self) -> None:
        try:
            client, _ = self._listener.accept()
        except OSError:  # no descriptors left, for a while
            sleep(ACCEPT_AGAIN_S)
            return
        if self._client is None:
            self._client = client
            self._poll.register(client, select.POLLIN)
        else:
            with client, suppress(OSError, msgspec.DecodeError):
                _refuse(client)

    def _hear(self, client: socket.socket) -> None:
        before = self._machine.migration
        try:
            stays = serve_one(self._machine, client)
        except (OSError, msgspec.DecodeError):
            stays = False
        if not stays:
            self._poll.unregister(client)
            client.close()
            self._client = None
            self._machine.tell(None)
            if self._machine.state == "waiting":
                self._machine.close()
                self._machine = self._make()
        self._tell(before, self._machine.migration)

    def _tell(self, before: wire.Migrates | None, now: wire.Migrates | None) -> None:
        """Log a migration that has come, or gone."""
        if before is now:
            return
        log = structlog.get_logger()
        if before is not None:
            words = f"a migration is over, the guest is {self.state}"
            log.info(words, role=before.role, session=before.session)
        if now is not None:
            log.info("a migration has begun", role=now.role, session=now.session)

    def close(self) -> None:
        """End the guest, remove the socket."""
        with suppress(OSError):
            if self._path.lstat().st_ino == self._inode:  # another guest may have the place
                self._path.unlink()
        self._listener.close()
        self._machine.close()
        os.close(self._wake_up)
        if self._client is not None:
            self._client.close()


def _refuse(client: socket.socket) -> None:
    """Answer the first request; one that were closed before it is read would not be heard."""
    client.settimeout(REFUSAL_S)
    number, _ = wire.decode_request(client.recv(wire.PACKET_BYTES))
    client.send(wire.encode((number, wire.Refused("another migration has this guest"))))


def _listener(path: Path) -> socket.socket:
    """A socket at `path`, for this user alone, in the place of one that nobody listens at; of two
    at a time one gets it."""
    try:
        with locked_folder(path.parent, LOCK_SECONDS):
            check_free(path, "--socket", socket.SOCK_SEQPACKET)
            path.unlink(missing_ok=True)
            return _bound(path)
    except OSError as error:
        raise ConfigError(f"--socket: cannot listen at {path}: {error.strerror or error}") from None


def _bound(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    mask = os.umask(0o177)
    try:
        listener.bind(str(path))
        listener.listen()
    except BaseException:
        listener.close()
        raise
    finally:
        os.umask(mask)
    return listener
