"""One worker process: started by a fork server that may be dead or stopped, ended for sure.

Its end is seen through a pidfd: what multiprocessing tells of it comes by way of the fork
server, and would say of all workers that they died when only that one did.
"""

import os
import select
import signal
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.context import ForkServerContext
from threading import Thread
from time import monotonic
from typing import Any

from protocol.errors import WorkerError
from workers.fork_server import wake_fork_server

FORK_SECONDS = 10.0
"""For the fork server, which imports what the workers need first: 0.3 s on an idle machine."""
TICK_SECONDS = 0.05
REAP_SECONDS = 1.0


class WorkerProcess:
    """A process that runs `body(settings)`; WorkerError where it cannot be started in time."""

    def __init__(
        self,
        context: ForkServerContext,
        name: str,
        body: Callable[[Any], None],
        settings: object,
        tick: Callable[[], None],
    ) -> None:
        self.name = name
        self._process = context.Process(target=body, args=(settings,), name=name)
        self._is_abandoned = False
        self._start(tick)
        self.pid: int = self._process.pid or 0
        try:
            self.pidfd = os.pidfd_open(self.pid)
        except ProcessLookupError:
            raise WorkerError(f"{name} ended as soon as it was started") from None

    def _start(self, tick: Callable[[], None]) -> None:
        """Start it, by a thread of its own: a fork server that is stopped never answers.

        `tick` is called all the while.
        """
        failure: list[Exception] = []

        def start() -> None:
            try:
                self._process.start()
            except Exception as error:
                failure.append(error)
            if self._is_abandoned:
                self._end_abandoned()

        thread = Thread(target=start, daemon=True)
        thread.start()
        deadline = monotonic() + FORK_SECONDS
        try:
            while thread.is_alive() and monotonic() < deadline:
                thread.join(TICK_SECONDS)
                tick()
        except BaseException:
            self._abandon(thread)
            raise
        if thread.is_alive():
            self._abandon(thread)
            raise WorkerError(f"the fork server did not start {self.name} in {FORK_SECONDS:.0f} s")
        if failure:
            reason = str(failure.pop())  # not the error: what it refers to keeps descriptors open
            raise WorkerError(f"the fork server did not start {self.name}: {reason}")

    def _abandon(self, thread: Thread) -> None:
        """Nobody waits for it any more: once it is there it must not stay, however late that is."""
        self._is_abandoned = True
        wake_fork_server()
        thread.join(REAP_SECONDS)
        self._end_abandoned()

    def _end_abandoned(self) -> None:
        with suppress(ProcessLookupError, ValueError):  # the other thread has done it
            if (pid := self._process.pid) is not None:
                os.kill(pid, signal.SIGKILL)
                self._process.join(REAP_SECONDS)
                self._process.close()

    def has_ended(self, within_s: float = 0.0) -> bool:
        """Whether the process is gone, or goes in time."""
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        return bool(poll.poll(within_s * 1000))

    @property
    def exit_code(self) -> int | None:
        """How it ended, as far as the fork server knows; negative: by that signal."""
        self._process.join(REAP_SECONDS)
        return self._process.exitcode

    def kill(self) -> None:
        """End it now. Idempotent."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
        self.has_ended(REAP_SECONDS)

    def close(self) -> None:
        """Let go of a process that has ended."""
        os.close(self.pidfd)
        self._process.join(REAP_SECONDS)
        with suppress(ValueError):  # the fork server did not tell that it has ended
            self._process.close()
