"""The process that writes a memory file: stopped and let go on by signals.

Holds on to the process itself (a pidfd), so that no other one with the same number is
ever met. Invariant: it is let go on only by who stopped it.
"""

import os
import select
import signal
import time
from pathlib import Path

from pipeline.records.processes import Process, maybe_process
from protocol.errors import GuestError

_STOP_S = 1.0
_LOOK_AGAIN_MS = 1
_ENDED = frozenset("ZX")
_STOPPED = frozenset("Tt")


class Writer:
    """Process `pid`; GuestError where there is none, or it is gone."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._stopped = False
        try:
            self._pidfd = os.pidfd_open(pid)
        except OSError as error:
            raise GuestError(f"no process {pid} writes the memory: {error.strerror}") from None
        self._poll = select.poll()
        self._poll.register(self._pidfd, select.POLLIN)
        found = maybe_process(pid)
        if found is None:
            self.close()
            raise self._gone()
        self.process: Process = found

    def runs(self) -> bool:
        """Whether it is not stopped."""
        return "T" not in self._thread_states()

    def stop(self) -> str:
        """Stop all its threads; the run state that it had. Idempotent."""
        if self.runs():
            self._signal(signal.SIGSTOP)
            self._stopped = True
        self._wait_until_stopped()
        return "running" if self._stopped else "paused"

    def check_stopped(self) -> None:
        """GuestError where it runs again, though it was to stand still."""
        if not self._thread_states() <= _STOPPED:
            raise GuestError(f"the writer {self.pid} went on while it was to stand still")

    def resume(self) -> None:
        """Let it go on, if it was stopped here. Idempotent."""
        if self._stopped:
            self._stopped = False
            self._signal(signal.SIGCONT)

    def has_ended(self) -> bool:
        """Whether the process is gone."""
        return bool(self._poll.poll(0))

    def close(self) -> None:
        """Let go of it, as it is. Idempotent."""
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1

    def _wait_until_stopped(self) -> None:
        until = time.monotonic() + _STOP_S
        while not (states := self._thread_states()) <= _STOPPED:
            if time.monotonic() > until:
                self.resume()
                found = ", ".join(sorted(states - _STOPPED))
                raise GuestError(
                    f"the writer {self.pid} did not stop within {_STOP_S:g} s: threads in {found}"
                )
            self._poll.poll(_LOOK_AGAIN_MS)

    def _signal(self, number: signal.Signals) -> None:
        try:
            signal.pidfd_send_signal(self._pidfd, number)
        except ProcessLookupError:
            raise self._gone() from None
        except OSError as error:
            raise GuestError(f"the writer {self.pid} cannot be stopped: {error.strerror}") from None

    def _thread_states(self) -> set[str]:
        """The state letters of its living threads, by /proc/PID/task/*/stat."""
        states = set()
        for stat in Path(f"/proc/{self.pid}/task").glob("*/stat"):
            try:
                states.add(stat.read_text(errors="replace").rpartition(")")[2].split()[0])
            except (FileNotFoundError, ProcessLookupError):  # the thread ended meanwhile
                continue
        if self.has_ended() or not states - _ENDED:
            raise self._gone()
        return states - _ENDED

    def _gone(self) -> GuestError:
        return GuestError(f"the writer {self.pid} is gone")
