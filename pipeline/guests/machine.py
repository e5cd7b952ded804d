"""The process of a synthetic guest: `python -m pipeline.guests.machine FD`.

Owns the guest's memory and, between two requests on its socket, does its work. Ends when
the socket closes, so that it never outlives who started it. Invariant: its private
memory does not grow with that of the guest.
"""

import contextlib
import os
import select
import signal
import socket
import sys
import time
from pathlib import Path
from typing import assert_never

from pipeline import uffd
from pipeline.guests import devices, selfcheck, wire
from pipeline.guests.memory import GuestMemory, anonymous_memory, named_memory
from pipeline.guests.workload import Runner, lay_out
from protocol.devices import Section
from protocol.errors import GuestError, MigrationError
from protocol.limits import PAGE_BYTES

BLOCK_NAME = "ram"
_TICK_MS = 2

Reply = tuple[wire.AnyAnswer, list[int]]


class Machine:
    """A guest with memory and perhaps a workload, paused or running.

    It has arrived once it was started, or accepted, here. Raises MigrationError or OSError for
    what it is asked and cannot do.
    """

    def __init__(self, start: wire.Start) -> None:
        if start.workload is not None:
            lay_out(start.workload, start.memory_bytes)
        self._fd = _make_memory(start)
        self._memory = GuestMemory(self._fd, start.memory_bytes // PAGE_BYTES)
        self._runner: Runner | None = None
        self._static_digest = 0
        self._left_ns: int | None = None
        self._running = False
        self._arrived = start.workload is not None
        self._gone = False
        self._session = ""
        self.migration: wire.Migrates | None = None
        """The one that it is in, as far as it was told."""
        self._registration: int | None = None
        if start.workload is not None:
            self._runner = Runner(start.workload, self._memory)
            self._static_digest = selfcheck.fill(self._runner)
            self._resume()

    @property
    def state(self) -> wire.State:
        """Whether it runs, or why not."""
        if not self._arrived:
            return "waiting"
        if self._gone:
            return "gone"
        return "running" if self._running else "paused"

    def tell(self, migration: wire.Migrates | None) -> None:
        """It is in `migration` from now on; in none it has all of its processor time."""
        self.migration = migration
        if migration is None and self._runner is not None:
            self._runner.slow_down(0)

    def run(self) -> int | None:
        """Do what is due; how many ms to wait until the next time, None: until it is asked."""
        if not self._running:
            return None
        return 0 if self._loaded().run(time.monotonic_ns()) else _TICK_MS

    def close(self) -> None:
        """Let go of the memory. Idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def answer(self, request: wire.AnyRequest) -> Reply:
        """Do what is asked; the answer and the descriptors that go with it, which stay ours."""
        match request:
            case wire.Describe():
                address, pages = self._memory.address, self._memory.pages
                answer = wire.Described(BLOCK_NAME, pages, address, self.state, self._session)
                return answer, [self._fd]
            case wire.Arm():
                return wire.Armed(self._arm()), []
            case wire.Stop():
                return wire.Stopped(self._stop()), []
            case wire.Resume():
                self._resume()
                return wire.Done(), []
            case wire.Slow(percent):
                self._loaded().slow_down(percent)
                return wire.Done(), []
            case wire.Save():
                return wire.Saved(self._save()), []
            case wire.Load(sections):
                self._load(sections)
                return wire.Done(), []
            case wire.Check():
                return wire.Checked(selfcheck.check(self._loaded(), self._static_digest)), []
            case wire.Statistics():
                told = self._loaded().statistics()
                return wire.Told(told.dirty_rate, told.gap_ms), []
            case wire.Begin(session, run):
                self._begin(session, run=run)
                return wire.Done(), []
            case wire.Leave():
                self._leave()
                return wire.Done(), []
            case wire.Migrates(session=session):
                self.tell(None if session is None else request)
                return wire.Done(), []
            case wire.Quit():
                return wire.Done(), []
            case wire.Start():
                raise GuestError("the guest was started already")
            case _:
                assert_never(request)

    def _loaded(self) -> Runner:
        if self._runner is None:
            raise GuestError("the guest has not arrived yet: no device state was loaded")
        return self._runner

    def _arm(self) -> str | None:
        if self._registration is None:
            words = self._memory.words
            try:
                self._registration = uffd.register(self._memory.address, words.nbytes)
            except OSError as error:
                return f"the kernel refused to track the guest's memory: {error}"
        return None

    def _begin(self, session: str, *, run: bool) -> None:
        self._loaded()
        if self._arrived:
            raise GuestError(f"the guest is here already, since session {self._session}")
        self._arrived, self._session, self.migration = True, session, None
        if run:
            self._resume()

    def _stop(self) -> str:
        run_state = "running" if self._running else "paused"
        self._running = False
        if self._runner is not None:
            self._runner.slow_down(0)
        return run_state

    def _resume(self) -> None:
        runner = self._loaded()
        if self._running:
            return
        if self._gone:
            raise GuestError("the guest was given away: it does not run here any more")
        now_ns = time.monotonic_ns()
        if self._left_ns is None:
            runner.go_on(now_ns)
        else:
            runner.arrived(now_ns, self._left_ns)
            self._left_ns = None
        self._running = True

    def _leave(self) -> None:
        if self._running:
            raise GuestError("the guest runs: it was not given away")
        self._gone, self.migration = True, None

    def _save(self) -> list[Section]:
        if self._running:
            raise GuestError("the guest runs: its device state is saved while it is stopped")
        return devices.save(self._loaded(), self._static_digest)

    def _load(self, sections: list[Section]) -> None:
        if self._runner is not None:
            raise GuestError("the guest does not wait for a device state: it has one")
        arrived = devices.load(sections, self._memory)
        self._runner, self._static_digest = arrived.runner, arrived.static_digest
        self._left_ns = arrived.left_ns


def _make_memory(start: wire.Start) -> int:
    if start.path is None:
        return anonymous_memory(start.memory_bytes)
    return named_memory(Path(start.path), start.memory_bytes, cleared=True)


def serve(connection: socket.socket) -> None:
    """Be a guest, until `connection` says quit or closes."""
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    with contextlib.suppress(ConnectionError):  # whoever started it is gone
        machine = _begin(connection)
        while machine is not None:
            if poll.poll(machine.run()) and not serve_one(machine, connection):
                return


def _begin(connection: socket.socket) -> Machine | None:
    packet = connection.recv(wire.PACKET_BYTES)
    if not packet:
        return None
    number, request = wire.decode_request(packet)
    machine = None
    try:
        if not isinstance(request, wire.Start):
            raise GuestError(f"{type(request).__name__} before the guest was started")
        machine = Machine(request)
        answer: wire.AnyAnswer = wire.Done()
    except (MigrationError, OSError) as error:
        answer = wire.Refused(str(error))
    connection.send(wire.encode((number, answer)))
    return machine


def serve_one(machine: Machine, connection: socket.socket) -> bool:
    """Answer what came on `connection`; False where the other end says quit, or is gone."""
    packet = connection.recv(wire.PACKET_BYTES)
    if not packet:
        return False
    number, request = wire.decode_request(packet)
    fds: list[int] = []
    try:
        answer, fds = machine.answer(request)
    except (MigrationError, OSError) as error:
        answer = wire.Refused(str(error))
    socket.send_fds(connection, [wire.encode((number, answer))], fds)
    return not isinstance(request, wire.Quit)


def main() -> None:
    """Serve the socket whose descriptor is the only argument."""
    for number in (
        signal.SIGINT,
        signal.SIGTERM,
        signal.SIGHUP,
    ):  # to a whole process group: a cancel
        signal.signal(number, signal.SIG_IGN)
    with socket.socket(fileno=int(sys.argv[1])) as connection:
        serve(connection)


if __name__ == "__main__":
    main()
