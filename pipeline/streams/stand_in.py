"""A process that stands for the other end on this machine, as the command sees it."""

import socket
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from shutil import rmtree
from time import monotonic_ns
from typing import Any

from pipeline.streams.leash import OVER
from protocol.errors import PeerLost, WorkerError
from protocol.limits import REASON_CHARS
from workers.fork_server import fork_server
from workers.memory import PassedFd
from workers.process import WorkerProcess

LAST_WORD_NS = 500_000_000
"""How long what it has handed on before its end may be on its way."""

Making = Callable[[Path, PassedFd], object]
"""What makes the settings of such a process, from the folder of its sockets and its leash."""


class StandIn:
    """One such process; owned by the thread that made it. WorkerError where there is none.

    `folder`, of mode 0700, is for its sockets and those of this end.
    """

    def __init__(self, name: str, body: Callable[[Any], None], settings: Making) -> None:
        self._name = name
        self._reason = ""
        self._ended_ns: int | None = None
        self.folder = Path(tempfile.mkdtemp(prefix="pageferry-"))
        self._leash, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._leash.setblocking(False)
        try:
            made = settings(self.folder, PassedFd(theirs.fileno()))
            self._process = WorkerProcess(fork_server(), name, body, made, lambda: None)
        except WorkerError:
            self._leash.close()
            rmtree(self.folder, ignore_errors=True)
            raise
        finally:
            theirs.close()

    def check(self) -> None:
        """PeerLost, with its reason, where it has ended by itself."""
        if self._ended_ns is None:
            self._hear()
        elif monotonic_ns() - self._ended_ns > LAST_WORD_NS:
            raise PeerLost(self._reason or f"{self._name} died")

    def _hear(self) -> None:
        try:
            word = self._leash.recv(4 * REASON_CHARS)
        except BlockingIOError:
            return
        except OSError:
            word = b""
        self._reason = word.decode(errors="replace")
        self._ended_ns = monotonic_ns()

    def end(self) -> None:
        """Tell it that it is over."""
        with suppress(OSError):
            self._leash.send(OVER)

    def has_ended(self, within_s: float) -> bool:
        """Whether it has ended, or ends in time."""
        return self._process.has_ended(within_s)

    def close(self, within_s: float) -> None:
        """Wait for its end, or see to it; leave nothing."""
        if not self.has_ended(within_s):
            self._process.kill()
        self._process.close()
        self._leash.close()
        rmtree(self.folder, ignore_errors=True)
