"""The process of a synthetic guest: started by us and ended with us, or one that lives on.

Either is spoken to by a conversation of ours alone.
"""

import contextlib
import os
import select
import socket
import subprocess
import sys
from pathlib import Path

from pipeline.guests import wire
from pipeline.guests.conversation import ANSWER_S, Conversation
from pipeline.records.processes import Process, maybe_process
from pipeline.unix_sockets import peer_of
from protocol.errors import GuestError, NoSuchGuest

_END_S = 1.0
_ROOT = Path(__file__).parents[2]


class GuestProcess:
    """A guest's process and the conversation with it; `child` where it is ours to end, `who` for
    words about it."""

    def __init__(
        self, connection: socket.socket, pid: int, child: subprocess.Popen[bytes] | None, who: str
    ) -> None:
        self.who = who
        self.talk = Conversation(connection, pid)
        self._child = child
        found = maybe_process(pid)
        if found is None:
            connection.close()
            raise GuestError(f"the guest process {pid} died")
        self.process: Process = found
        self._dead = False
        self._pidfd = os.pidfd_open(pid)
        self._ended = select.poll()
        self._ended.register(self._pidfd, select.POLLIN)

    @classmethod
    def start(cls) -> "GuestProcess":
        """A new one, which ends when our socket closes."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            child = _start_child(theirs.fileno())
        return cls(ours, child.pid, child, f"process {child.pid}")

    @classmethod
    def attach(cls, path: Path) -> "GuestProcess":
        """The one that listens at `path`; NoSuchGuest where none does, GuestError for one that
        hangs."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        connection.settimeout(ANSWER_S)  # one that hangs may have its backlog full
        try:
            connection.connect(str(path))
        except OSError as error:
            connection.close()
            why = error.strerror or str(error)
            kind = GuestError if isinstance(error, TimeoutError | BlockingIOError) else NoSuchGuest
            raise kind(f"no guest answers at {path}: {why}") from None
        return cls(connection, peer_of(connection).pid, None, f"at {path}")

    @property
    def is_dead(self) -> bool:
        """Whether it is seen to have ended; one that is about to gets a moment."""
        if self._pidfd >= 0:
            wait_ms = _END_S * 1000 if self.talk.was_cut or self.process.is_ending else 0
            self._dead = bool(self._ended.poll(wait_ms))
        return self._dead

    def close(self) -> None:
        """Let go of it; one that we started ends, and is waited for. Idempotent."""
        if self._child is not None and not self.talk.is_over:
            with contextlib.suppress(GuestError):
                self.talk.ask(wire.Quit(), wire.Done, _END_S)
        self.talk.close()
        if self._child is not None:
            _reap(self._child)
        if self._pidfd >= 0:
            self._dead = bool(self._ended.poll(0))
            os.close(self._pidfd)
            self._pidfd = -1


def process_at(path: Path) -> Process:
    """Which process the guest at `path` is; GuestError as `GuestProcess.attach`."""
    guest = GuestProcess.attach(path)
    guest.close()
    return guest.process


def _reap(child: subprocess.Popen[bytes]) -> None:
    try:
        child.wait(_END_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def _start_child(fd: int) -> subprocess.Popen[bytes]:
    path = os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH"))))
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "pipeline.guests.machine", str(fd)],
        env={**os.environ, "PYTHONPATH": path},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        pass_fds=(fd,),
        process_group=0,  # a terminal's SIGINT must not meet it before it ignores them
    )
