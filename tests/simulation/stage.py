"""Puts virtual time, sockets, processes and disks in the place of the real ones.

Whatever module of the project knows one of `_stand_ins` by name gets the other for it, so that
all that is not listed here runs as it is.
"""

import multiprocessing
import os
import select
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import structlog
import zmq

from pipeline.destination import pump as destination_pump
from pipeline.destination.pump import IncomingPump
from pipeline.guests.conversation import close_all
from pipeline.guests.process import GuestProcess
from pipeline.logs import log_if_unexpected
from pipeline.records import processes, store
from pipeline.source import pump as source_pump
from pipeline.source.pump import SourcePump
from pipeline.source.statistics import SourceStatistics
from protocol import frames
from tests.simulation.clock import MS, SECOND, US
from tests.simulation.guest import Machine
from tests.simulation.machine import Epoll, Sentinel, Worker
from tests.simulation.sockets import IN, Poller, Socket
from tests.simulation.world import World
from workers import pages
from workers.fork_server import fork_server, wake_fork_server
from workers.live import LiveSettings
from workers.memory import keep_large_allocations
from workers.pages import PageBuffer, Pages
from workers.process import WorkerProcess

HASH_NS, SEND_NS = 300 * US, 2 * MS
POLL_MS = 100
"""Twice as long as it is: half of all turns were for nothing but the clock."""
_read = PageBuffer.read
ROOMS = ("pipeline.", "protocol.", "workers.")


class Stage:
    """Where the world of the moment is played."""

    world: World

    def now_ns(self) -> int:
        """As time.monotonic_ns."""
        return self.world.clock.now_ns

    def now(self) -> float:
        """As time.monotonic."""
        return self.world.clock.now_ns / SECOND

    def sleep(self, seconds: float) -> None:
        """As time.sleep."""
        self.world.clock.sleep(int(seconds * SECOND))

    def worker(
        self,
        context: object,
        name: str,
        body: Callable[[object], None],
        settings: object,
        tick: Callable[[], None],
    ) -> Worker:
        """As WorkerProcess."""
        return Worker(self.world.processes, name, body, settings, tick)

    def attach(self, path: Path) -> Machine:
        """As GuestProcess.attach."""
        guest = self.world.source if path.name == "source" else self.world.destination
        return Machine(self.world.processes, guest, ours=False)

    def parent(self) -> SimpleNamespace:
        """As multiprocessing.parent_process."""
        process = self.world.clock.current
        assert process is not None
        return SimpleNamespace(sentinel=Sentinel(process))

    def unexpected(self, error: Exception) -> None:
        """As log_if_unexpected: there is nothing unexpected in a virtual world."""
        with mock.patch.object(structlog, "get_logger") as logger:
            log_if_unexpected(error)
        self.world.truth.check(not logger.called, "unexpected: {}", repr(error))

    def draw(self, frame_bytes: int, now_ns: int) -> int:
        """As LiveSettings.draw: how long a frame takes until it leaves."""
        return int(self.world.dice.random() * SEND_NS)

    def read(self, buffer: PageBuffer, fd: int, wanted: Pages) -> None:
        """As PageBuffer.read; what comes after the copy takes a moment."""
        _read(buffer, fd, wanted)
        self.world.clock.sleep(int(self.world.dice.random() * HASH_NS))

    def aside(
        self, pump: IncomingPump, work: Callable[[], None], give_up: Callable[[], None] = print
    ) -> None:
        """As IncomingPump.aside."""
        thread = Thread(self.world, work)
        pump._poller.register(thread.end, IN)
        pump.wait(lambda: thread.process.ended)
        pump._poller.unregister(thread.end)
        thread.result()

    def aside_here(self, pump: SourcePump, work: Callable[[], object]) -> object:
        """As SourcePump.aside."""
        thread, poller = Thread(self.world, work), Poller(self.world.clock)
        poller.register(thread.end, IN)
        while not thread.process.ended:
            poller.poll(50)
            pump._beat()
        return thread.result()


class Thread:
    """One more thread of the process at work, whose fate it has; `end` is ready when it is over."""

    def __init__(self, world: World, work: Callable[[], object]) -> None:
        owner = world.clock.current
        assert owner is not None
        self._work = work
        self._made: list[object] = []
        self._failures: list[Exception] = []
        self.process = world.processes.start(f"thread of {owner.name}", self._body)
        owner.at_end.append(self.process.kill)
        self.end = Epoll(owner)
        self.end.register(self.process, select.EPOLLIN)

    def _body(self) -> None:
        try:
            self._made.append(self._work())
        except Exception as error:
            self._failures.append(error)

    def result(self) -> object:
        """What the work returned, or raised."""
        for failure in self._failures:
            raise failure
        return self._made[0]


class Context:
    """A ZeroMQ context of the process at work."""

    def __init__(self, stage: Stage) -> None:
        self._world = stage.world
        self._sockets: list[Socket] = []

    def socket(self, kind: int) -> Socket:
        """A socket of that process."""
        assert self._world.clock.current is not None
        self._sockets.append(Socket(self._world.network, self._world.clock.current))
        return self._sockets[-1]

    def destroy(self) -> None:
        """Close all of them."""
        for socket in self._sockets:
            socket.close()

    def __enter__(self) -> "Context":
        return self

    def __exit__(self, *_: object) -> None:
        self.destroy()


def _stand_ins(stage: Stage) -> list[tuple[object, object]]:
    """What is real, and what takes its place."""

    def nothing(*_: object, **__: object) -> None:
        """What it does to the system is not simulated."""

    return [
        (time.monotonic_ns, stage.now_ns),
        (time.thread_time_ns, stage.now_ns),
        (time.monotonic, stage.now),
        (time.sleep, stage.sleep),
        (
            zmq,
            _Partly(zmq, Context=lambda: Context(stage), Poller=lambda: Poller(stage.world.clock)),
        ),
        (structlog, _Partly(structlog, get_logger=lambda: mock.MagicMock())),
        (select, _Partly(select, epoll=lambda: Epoll(stage.world.clock.current))),
        (signal, _Partly(signal, signal=nothing)),
        (shutil, _Partly(shutil, rmtree=nothing)),
        (multiprocessing, _Partly(multiprocessing, parent_process=stage.parent)),
        (
            tempfile,
            _Partly(tempfile, mkdtemp=lambda prefix: f"/{stage.world.dice.getrandbits(60)}"),
        ),
        (os, _Partly(os, urandom=lambda size: stage.world.dice.randbytes(size))),
        (close_all, nothing),
        (keep_large_allocations, nothing),
        (wake_fork_server, nothing),
        (fork_server, nothing),
        (WorkerProcess, stage.worker),
        (store.settling, nullcontext),
        (store.create_record, lambda record: stage.world.disk.create(record)),
        (processes.this_process, lambda: stage.world.processes.this()),
        (processes.maybe_process, lambda pid: stage.world.processes.maybe_identity(pid)),
        (log_if_unexpected, stage.unexpected),
        (SourceStatistics, lambda pages: SourceStatistics(pages, _scanned_ns=stage.now_ns())),
    ]


class _Partly:
    """A module of which some names mean something else."""

    def __init__(self, module: object, **names: object) -> None:
        self.__dict__.update(vars(module), **names)


@contextmanager
def staged() -> Iterator[Stage]:
    """While this lasts the project lives in the world of the stage."""
    stage = Stage()
    by_id = {id(real): stand_in for real, stand_in in _stand_ins(stage)}
    with ExitStack() as stack:
        for module_name, module in list(sys.modules.items()):
            if module_name.startswith(ROOMS):
                for name, value in list(vars(module).items()):
                    if id(value) in by_id:
                        stack.enter_context(mock.patch.object(module, name, by_id[id(value)]))
        stack.enter_context(
            mock.patch.object(LiveSettings, "draw", lambda live, *rest: stage.draw(*rest))
        )
        stack.enter_context(mock.patch.object(PageBuffer, "read", lambda *rest: stage.read(*rest)))
        stack.enter_context(
            mock.patch.object(IncomingPump, "aside", lambda pump, *rest: stage.aside(pump, *rest))
        )
        stack.enter_context(
            mock.patch.object(SourcePump, "aside", lambda pump, work: stage.aside_here(pump, work))
        )
        stack.enter_context(mock.patch.object(GuestProcess, "attach", stage.attach))
        for pump in (source_pump, destination_pump):
            stack.enter_context(mock.patch.object(pump, "POLL_MS", POLL_MS))
        stack.enter_context(mock.patch.object(frames, "WINDOW_BYTES", 4 * 2 * 4096))
        stack.enter_context(mock.patch.object(pages, "HASH_PIECE_PAGES", 32))
        yield stage
