"""A process that stands for the other end on this machine, as the command sees it."""

import socket
import tempfile
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from shutil import rmtree
from time import monotonic_ns
from typing import Any

from pipeline.streams.leash import OVER
from protocol.errors import PeerLost, WorkerError
from protocol.limits import REASON_CHARS
from workers.fork_server import fork_server, warm_up
from workers.memory import PassedFd, check_descriptors
from workers.process import WorkerProcess

LAST_WORD_NS = 500_000_000
"""How long what it has handed on before its end may be on its way."""
START_DESCRIPTORS = 16
"""It takes 10, and what fails halfway for want of one cannot be cleared up."""

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
        with ExitStack() as opened:
            try:
                self._start(name, body, settings, opened)
            except OSError as error:
                raise WorkerError(f"{name} did not start: {error.strerror}") from None
            self._opened = opened.pop_all()

    def _start(
        self, name: str, body: Callable[[Any], None], settings: Making, opened: ExitStack
    ) -> None:
        """What is open by then is in `opened`; a process that nobody waits for ends with it."""
        warm_up()
        check_descriptors(START_DESCRIPTORS)
        self.folder = Path(tempfile.mkdtemp(prefix="pageferry-"))
        opened.callback(rmtree, self.folder, ignore_errors=True)
        self._leash, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        opened.enter_context(self._leash)
        self._leash.setblocking(False)
        with theirs:
            made = settings(self.folder, PassedFd(theirs.fileno()))
            self._process = WorkerProcess(fork_server(), name, body, made, lambda: None)

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

    def close(self) -> None:
        """See to its end; leave nothing."""
        if not self.has_ended(0):
            self._process.kill()
        self._process.close()
        self._opened.close()
