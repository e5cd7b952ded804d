"""A synthetic guest as the engine sees it, at the source and at the destination.

Owns the guest's process, the socket to it and a descriptor of its memory; all end with
`close`. Every question has a deadline.
"""

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from pipeline.guests import wire
from pipeline.guests.base import GuestBlock, GuestStatistics, Mapping
from pipeline.guests.workload import Workload
from protocol.control import BlockInfo
from protocol.devices import Section
from protocol.errors import GuestError
from protocol.limits import PAGE_BYTES

_ANSWER_S = 5.0
_WHOLE_MEMORY_S = 30.0
_WHOLE_MEMORY_S_A_GIB = 10.0
"""Filling takes 1.2 s a GiB, checking 0.5 s, on an idle machine."""

_END_S = 1.0
_ROOT = Path(__file__).parents[2]

T = TypeVar("T", bound=wire.Answer)


class _Machine:
    """The process of a guest and the conversation with it."""

    def __init__(self) -> None:
        self._number = 0
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = _start_process(theirs.fileno())
        self.pid = self._process.pid

    def ask(self, request: wire.Request, expected: type[T], within_s: float = _ANSWER_S) -> T:
        """The answer to `request`; GuestError for a refusal, a death or silence."""
        answer, fds = self._ask(request, within_s)
        _close_all(fds)
        return self._expect(answer, expected)

    def describe(self) -> tuple[wire.Described, int]:
        """Where the guest's memory is, and a descriptor of it, the caller's."""
        answer, fds = self._ask(wire.Describe(), _ANSWER_S)
        return self._expect(answer, wire.Described), fds[0]

    def close(self) -> None:
        """End the process and wait for it. Idempotent."""
        if self._socket.fileno() < 0:
            return
        with contextlib.suppress(GuestError):
            self.ask(wire.Quit(), wire.Done, _END_S)
        self._socket.close()
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def is_dead(self) -> bool:
        """Whether the process has ended."""
        return self._process.poll() is not None

    def _ask(self, request: wire.Request, within_s: float) -> tuple[wire.AnyAnswer, list[int]]:
        self._number += 1
        who = f"the guest process {self.pid}"
        try:
            self._socket.settimeout(within_s)
            self._socket.send(wire.encode((self._number, request)))
            return self._hear(time.monotonic() + within_s)
        except TimeoutError:
            what = type(request).__name__.lower()
            raise GuestError(f"{who} did not answer {what} within {within_s:g} s") from None
        except ConnectionError:
            raise GuestError(f"{who} died") from None
        except OSError as error:
            raise GuestError(f"{who} cannot be asked: {error.strerror}") from None

    def _hear(self, until: float) -> tuple[wire.AnyAnswer, list[int]]:
        while (left_s := until - time.monotonic()) > 0:
            self._socket.settimeout(left_s)
            packet, fds, _, _ = socket.recv_fds(
                self._socket, wire.PACKET_BYTES, 1, socket.MSG_CMSG_CLOEXEC
            )
            if not packet:
                raise ConnectionResetError
            number, answer = wire.decode_answer(packet)
            if number == self._number:
                return answer, fds
            _close_all(fds)
        raise TimeoutError

    def _expect(self, answer: wire.AnyAnswer, expected: type[T]) -> T:
        if isinstance(answer, wire.Refused):
            raise GuestError(answer.reason)
        if not isinstance(answer, expected):
            raise GuestError(f"the guest process {self.pid} answered {type(answer).__name__}")
        return answer


def _start_process(fd: int) -> subprocess.Popen[bytes]:
    path = os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH"))))
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "pipeline.guests.machine", str(fd)],
        env={**os.environ, "PYTHONPATH": path},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        pass_fds=(fd,),
        process_group=0,  # a terminal's SIGINT must not meet it before it ignores them
    )


def _close_all(fds: list[int]) -> None:
    for fd in fds:
        os.close(fd)


class _Guest:
    """What both ends of a synthetic guest have in common."""

    kind = "synthetic"
    name = "the synthetic guest"
    can_stop = True

    def __init__(self, memory_bytes: int, workload: Workload | None, path: Path | None) -> None:
        start = wire.Start(memory_bytes, workload, None if path is None else str(path))
        self._within_s = _WHOLE_MEMORY_S + _WHOLE_MEMORY_S_A_GIB * memory_bytes / 2**30
        self._machine = _Machine()
        self.pid = self._machine.pid
        self.blocks: list[GuestBlock] = []
        try:
            self._created = self._machine.ask(start, wire.Made, self._within_s).created
            described, fd = self._machine.describe()
        except BaseException:
            self._machine.close()
            raise
        self.blocks.append(GuestBlock(described.name, described.pages, fd))
        self._address = described.address

    def is_dead(self) -> bool:
        """Whether the machine's process has ended."""
        return self._machine.is_dead()

    def statistics(self) -> GuestStatistics:
        """The dirty rate since the last call, and the gap, where it has arrived."""
        told = self._machine.ask(wire.Statistics(), wire.Told)
        return GuestStatistics(told.dirty_rate, told.gap_ms)

    def self_check(self) -> str | None:
        """None when its memory is right, else the first wrong page and how it is wrong."""
        return self._machine.ask(wire.Check(), wire.Checked, self._within_s).bad

    def _close(self) -> None:
        self._machine.close()
        _close_all([block.fd for block in self.blocks])
        self.blocks = []


class SyntheticGuest(_Guest):
    """A SourceGuest: filled, and running, when the constructor returns."""

    def __init__(self, memory_bytes: int, workload: Workload, path: Path | None = None) -> None:
        super().__init__(memory_bytes, workload, path)
        self._run_state: str | None = None
        self._refusal: str | None = None

    def arm(self) -> list[Mapping]:
        """The guest registers its own memory."""
        self._refusal = self._machine.ask(wire.Arm(), wire.Armed).error
        return [] if self._refusal else [Mapping(0, self.pid, self._address)]

    def why_not_armed(self) -> str:
        """What the kernel said."""
        return self._refusal or ""

    def stop(self) -> str:
        """The run state that it had when it was first stopped."""
        if self._run_state is None:
            self._run_state = self._machine.ask(wire.Stop(), wire.Stopped).run_state
        return self._run_state

    def check_stopped(self) -> None:
        """Nobody but us lets it go on."""

    def resume(self) -> None:
        """Undo `stop`."""
        if self._run_state == "running":
            self._machine.ask(wire.Resume(), wire.Done)
        self._run_state = None

    def save_devices(self) -> list[Section]:
        """Clock, prng, counters, workload."""
        return self._machine.ask(wire.Save(), wire.Saved).sections

    def close(self) -> None:
        """End the guest. Idempotent."""
        self._close()


class SyntheticArrival(_Guest):
    """An ArrivingGuest: paused, its memory all holes, in `path` or without a name."""

    def __init__(self, blocks: Sequence[BlockInfo], path: Path | None = None) -> None:
        if [block.name for block in blocks] != ["ram"]:
            names = ", ".join(block.name for block in blocks)
            raise GuestError(f"a synthetic guest has one block, ram; these came: {names}")
        super().__init__(blocks[0].pages * PAGE_BYTES, None, path)
        self._path = path

    def load_devices(self, sections: list[Section]) -> None:
        """Take the four sections and nothing else."""
        self._machine.ask(wire.Load(sections), wire.Done)

    def start(self) -> bool:
        """Let it go on."""
        self._machine.ask(wire.Resume(), wire.Done)
        return True

    def close(self, *, arrived: bool) -> None:
        """End the guest; the file of one that did not arrive goes, if it was made here."""
        self._close()
        if self._path is not None and self._created and not arrived:
            self._path.unlink(missing_ok=True)
