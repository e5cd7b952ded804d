"""The conversation with a QEMU at its QMP socket: each question has a deadline.

The library speaks the protocol; its event loop runs while somebody waits for an answer, in whatever
thread does, one at a time.
"""

import asyncio
import os
import socket
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path
from threading import RLock
from typing import Any, TypeVar

import msgspec
from qemu.qmp import ConnectError, ExecuteError, QMPClient, QMPError

from pipeline.records.processes import Process, maybe_process
from pipeline.unix_sockets import peer_of
from protocol.errors import GuestError, NoSuchGuest

ANSWER_S = 10.0
"""A QEMU that starts or stops its processors answers within a few ms, on a busy machine."""
GREETING_S = 5.0
LOST = (QMPError, OSError, EOFError)
"""What the library raises when a connection ends, at once or when it is closed later."""
ONE_CLIENT = "QEMU talks to one client at a time, and has one there (or is stopped): end that one"

T = TypeVar("T")


class QemuRefused(GuestError):
    """QEMU's own words why it does not do what it was asked: it has not been done."""


class QemuMonitor:
    """The monitor that listens at `path`; NoSuchGuest where none does, GuestError where it does
    not answer.

    A connection that was lost is made anew, once a question, to the same process and to no other.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._loop = asyncio.new_event_loop()
        self._client = QMPClient("pageferry")
        self._process: Process | None = None
        self._lock = RLock()
        try:
            self._connect()
        except BaseException:
            self._loop.close()
            raise

    @property
    def process(self) -> Process:
        """The QEMU."""
        assert self._process is not None
        return self._process

    def query(self, answer: type[T], command: str, **arguments: object) -> T:
        """As `ask`, and what it returns as an `answer`; GuestError where it is none."""
        told = self.ask(command, **arguments)
        try:
            return msgspec.convert(told, answer)
        except msgspec.ValidationError as error:
            raise GuestError(f"QEMU's answer to {command} is not understood: {error}") from None

    def ask(self, command: str, **arguments: object) -> object:
        """What `command` returns; underlines in names are dashes. QemuRefused where QEMU says no,
        GuestError where it says nothing."""
        named = {name.replace("_", "-"): value for name, value in arguments.items()}
        with self._lock:
            try:
                return self._execute(command, named)
            except LOST:
                self._connect()
            try:
                return self._execute(command, named)
            except LOST as error:
                raise GuestError(f"{self.path}: {command}: {error}") from None

    def _execute(self, command: str, arguments: dict[str, object]) -> object:
        try:
            return self._run(self._client.execute(command, arguments), ANSWER_S)
        except ExecuteError as error:
            raise QemuRefused(f"QEMU refuses {command}: {error}") from None
        except TimeoutError:
            raise GuestError(f"QEMU has not answered {command} within {ANSWER_S:g} s") from None

    def events(self) -> set[str]:
        """The names of what it has told of since this was asked last, up to its last answer."""
        return {str(event["event"]) for event in self._client.events.clear()}

    def give(self, name: str, fd: int) -> None:
        """Let QEMU have a copy of descriptor `fd`, which `fd:name` is from then on."""
        with self._lock:
            self.ask("query-status")  # a connection that was lost is made anew
            try:
                self._client.send_fd_scm(fd)
            except LOST as error:
                raise GuestError(f"{self.path}: {error}") from None
            self.ask("getfd", fdname=name)

    def _connect(self) -> None:
        with suppress(TimeoutError, *LOST):
            self._run(self._client.disconnect(), GREETING_S)
        connection = _connection(self.path)
        try:
            self._process = self._same(_peer(connection))
            connection.setblocking(False)
            self._run(self._client.connect(connection), GREETING_S)
        except BaseException as error:
            connection.close()
            raise self._why_lost(error) from None

    def _same(self, process: Process) -> Process:
        if self._process is not None and process != self._process:
            raise GuestError(f"{self.path}: another QEMU listens there now")
        return process

    def _why_lost(self, error: BaseException) -> BaseException:
        if isinstance(error, LOST) and not _came_too_late(error):
            return GuestError(
                f"{self.path} does not speak QMP (as -qmp does, not -monitor): {error}"
            )
        if not _came_too_late(error):
            return error
        if self.process.is_stopped:
            return GuestError(f"{self.path}: process {self.process.pid} is stopped by a signal")
        return GuestError(f"{self.path}: no greeting: {ONE_CLIENT}")

    def _run(self, work: Coroutine[Any, Any, T], within_s: float) -> T:
        try:
            return self._loop.run_until_complete(asyncio.wait_for(work, within_s))
        except (ExecuteError, TimeoutError, *LOST):
            raise
        except Exception as error:  # what the library does not see through: too long, too deep
            raise QMPError(f"it does not speak QMP: {error}") from None

    def close(self) -> None:
        """Ask nothing more. Idempotent."""
        if self._loop.is_closed():
            return
        with suppress(TimeoutError, *LOST):
            self._run(self._client.disconnect(), GREETING_S)
        self._loop.close()


def _came_too_late(error: BaseException) -> bool:
    """Whether a deadline has passed; the library wraps what ends it then."""
    ended = isinstance(error, ConnectError) and isinstance(error.exc, asyncio.CancelledError)
    return ended or isinstance(error, TimeoutError)


def process_at(path: Path) -> Process:
    """The QEMU whose monitor listens at `path`; NoSuchGuest where none does."""
    connection = _connection(path)
    try:
        return _peer(connection)
    finally:
        connection.close()


def _connection(path: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(GREETING_S)
    try:
        connection.connect(str(path))
    except BlockingIOError:
        connection.close()
        raise GuestError(f"{path}: {ONE_CLIENT}") from None
    except OSError as error:
        connection.close()
        raise NoSuchGuest(f"no QEMU listens at {path}: {error.strerror}") from None
    return connection


def _peer(connection: socket.socket) -> Process:
    """Who listens there, or did when the socket was made."""
    pid = peer_of(connection).pid
    process = maybe_process(pid) if pid else None
    if process is None or process.pid == os.getpid():
        raise GuestError("the process that made the socket is gone")
    return process
