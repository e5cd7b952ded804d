"""A pool: worker processes from a fork server, one socket to talk to them, one way to end."""

import select
import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic, monotonic_ns
from typing import Any, NamedTuple, TypeVar

import zmq

from protocol import errors
from protocol.errors import WorkerError
from workers.fork_server import fork_server, wake_fork_server
from workers.link import PoolAddress, bind_privately, remove_socket
from workers.messages import (
    Broken,
    FromWorker,
    Ping,
    Pong,
    Stop,
    ToWorker,
    Up,
    decode_from_worker,
    encode,
)
from workers.process import WorkerProcess
from workers.watch import SILENCE_NS, Watch

STOP_SECONDS = 1.0
START_SECONDS = 20.0
LAST_WORD_MS = 500
"""How long the last message of a worker that has ended may be on its way; only that of one
that was killed is not waited for."""
REPLACEMENTS = 8
"""Workers that may be lost in one migration; what kills more of them is no accident."""

Settings = TypeVar("Settings")
Heard = tuple[int, FromWorker]


class Loss(NamedTuple):
    """A worker that is dead, or does not answer any more, and how that is said."""

    worker: int
    reason: str

    def while_at(self, task: str) -> "Loss":
        """The same, and what the worker was doing."""
        return self._replace(reason=f"{self.reason}, {task}")


class Pool:
    """Worker processes of one kind; owned by the thread that made it.

    Workers are numbered in the order of their start; a number is never given twice, so that
    a late word of one that was lost is told from one of its successor. `socket` and `ended`
    (readable once a worker has ended) are for the owner's poll set.
    """

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], stage: str) -> None:
        self._stage = stage
        self._ended = select.epoll()
        self._folder = Path(tempfile.mkdtemp(prefix="pageferry-"))
        self.socket = _bound(context, self._folder)
        self._launch: Callable[[int, Callable[[], None]], WorkerProcess] | None = None
        self._processes: dict[int, WorkerProcess] = {}
        self._number = 0
        self._lost = 0
        self._watch = Watch()
        self._started_ns: dict[int, int] = {}
        self._heard: deque[Heard] = deque()
        self._outbox: dict[int, list[bytes]] | None = None
        self.endpoints: dict[int, str] = {}

    @property
    def ended(self) -> int:
        """A descriptor that is readable while there is a worker that has ended."""
        return self._ended.fileno()

    @property
    def workers(self) -> list[int]:
        """The numbers of the workers that are up, or about to be."""
        return list(self._processes)

    def start(
        self,
        count: int,
        body: Callable[[Settings], None],
        settings: Callable[[PoolAddress], Settings],
        tick: Callable[[], None],
    ) -> None:
        """Start `count` workers that run `body(settings(address))`, and wait until all are up.

        `tick` is called all the while, so that the peer hears from this end.
        """
        context = fork_server()

        def launch(worker: int, tick: Callable[[], None]) -> WorkerProcess:
            made = settings(PoolAddress(self._folder, worker))
            return WorkerProcess(context, f"{self._stage} worker {worker}", body, made, tick)

        self._launch = launch
        for _ in range(count):
            self.add(tick)
        self._wait_until_up(tick)

    def add(self, tick: Callable[[], None]) -> None:
        """Start one more worker, which says `Up` in time; WorkerError where that cannot be.

        `tick` is called all the while.
        """
        worker, self._number = self._number, self._number + 1
        assert self._launch is not None, "start says how"
        self._processes[worker] = self._launch(worker, tick)
        self._started_ns[worker] = monotonic_ns()
        self._ended.register(self._processes[worker].pidfd, select.EPOLLIN)

    def _wait_until_up(self, tick: Callable[[], None]) -> None:
        while len(self.endpoints) < len(self._processes):
            for loss in self.losses(monotonic_ns()):
                raise WorkerError(loss.reason)
            self.socket.poll(100)
            tick()
            for _, message in self.receive():
                assert isinstance(message, Up), message

    def send(self, worker: int, message: ToWorker) -> None:
        """Tell one worker; within `together` at its end."""
        if self._outbox is not None:
            self._outbox.setdefault(worker, []).append(encode(message))
        else:
            self.socket.send_multipart([worker.to_bytes(4, "little"), encode(message)])

    @contextmanager
    def together(self) -> Iterator[None]:
        """What each worker is told meanwhile goes as one: it wakes up once."""
        outbox = self._outbox = {}
        try:
            yield
        finally:
            self._outbox = None
            for worker, bodies in outbox.items():
                self.socket.send_multipart([worker.to_bytes(4, "little"), *bodies])

    def broadcast(self, message: ToWorker) -> None:
        """Tell every worker."""
        for worker in self._processes:
            self.send(worker, message)

    def receive(self) -> Iterator[Heard]:
        """What the workers have said by now; a worker's failure is raised as its error.

        Nothing of one that was lost; `Up` of one that takes a place comes here, too.
        """
        while self._heard or self._take_in():
            worker, message = self._heard.popleft()
            if worker not in self._processes:
                continue
            self._watch.heard(worker)
            if isinstance(message, Broken):
                raise _as_error(f"{self._stage} worker {worker}", message)
            if isinstance(message, Up):
                self.endpoints[worker] = message.endpoint
                self._watch.add(worker, monotonic_ns())
            if not isinstance(message, Pong):
                yield worker, message

    def _take_in(self) -> bool:
        """Take the next message off the socket, if there is one."""
        try:
            identity, *bodies = self.socket.recv_multipart(zmq.NOBLOCK)
        except zmq.Again:
            return False
        worker = int.from_bytes(identity, "little")
        self._heard += ((worker, decode_from_worker(body)) for body in bodies)
        return True

    def ask(self, now_ns: int) -> None:
        """Ask the workers, once a second, whether they still hear."""
        for worker in self._watch.to_ask(now_ns):
            self.send(worker, Ping())

    def losses(self, now_ns: int) -> list[Loss]:
        """The workers that have died or hang. What they have said by now has to be received
        before; the error of one that ended by itself is raised."""
        silent = self._watch.silent(now_ns)
        found = []
        for worker, process in self._processes.items():
            if process.has_ended():
                found.append(Loss(worker, self._obituary(worker, process)))
            elif worker in silent or self._is_late(worker, now_ns):
                seconds = (SILENCE_NS if worker in silent else START_SECONDS * 1e9) / 1e9
                reason = f"{process.name} (pid {process.pid}) hangs: silent for {seconds:g} s"
                found.append(Loss(worker, reason))
        return found

    def _is_late(self, worker: int, now_ns: int) -> bool:
        """Whether a worker should have come up by now."""
        waited_ns = now_ns - self._started_ns[worker]
        return worker not in self.endpoints and waited_ns > START_SECONDS * 1e9

    def _obituary(self, worker: int, process: WorkerProcess) -> str:
        """How it ended; its own word for that is raised, if it had one."""
        code = process.exit_code
        while (code is None or code >= 0) and self.socket.poll(LAST_WORD_MS):
            self._take_in()
        for who, message in self._heard:
            if who == worker and isinstance(message, Broken):
                raise _as_error(process.name, message)
        return f"{process.name} (pid {process.pid}) died, exit code {code}"

    def replace(self, loss: Loss, tick: Callable[[], None]) -> None:
        """Make sure that a worker is dead, and start another one, which says `Up` in time.

        `tick` is called all the while. WorkerError, with the reason of this loss, when too many
        were lost.
        """
        self._lost += 1
        self.dismiss(loss.worker)
        if self._lost > REPLACEMENTS:
            raise WorkerError(f"{loss.reason}; {self._lost} {self._stage} workers were lost")
        self.add(tick)

    def dismiss(self, worker: int) -> None:
        """End a worker now, whatever it has to do."""
        process = self._processes.pop(worker)
        process.kill()
        self._ended.unregister(process.pidfd)
        self._watch.remove(worker)
        del self._started_ns[worker]
        self.endpoints.pop(worker, None)
        process.close()

    def stop(self) -> None:
        """End all workers, kill those that do not end within a second, leave nothing."""
        deadline = monotonic() + STOP_SECONDS
        if not self.socket.closed:
            self.broadcast(Stop())
        for process in self._processes.values():
            process.has_ended(max(0.0, deadline - monotonic()))
        for worker in self.workers:
            self.dismiss(worker)
        self._launch = None
        self._ended.close()
        wake_fork_server()
        self.socket.close()
        _remove(self._folder)


def _bound(context: zmq.Context[zmq.Socket[bytes]], folder: Path) -> zmq.Socket[bytes]:
    """The pool's socket; WorkerError, and no folder, where it cannot be had."""
    try:
        socket = context.socket(zmq.ROUTER)
        socket.linger = 0
        bind_privately(socket, PoolAddress(folder, 0).endpoint)
    except zmq.ZMQError as error:
        _remove(folder)
        why = zmq.strerror(error.errno or 0)
        raise WorkerError(f"no socket for workers in {folder}: {why}; TMPDIR moves it") from None
    return socket


def _remove(folder: Path) -> None:
    """Remove a pool's folder. Not by rmtree: it wants a descriptor, and may get none."""
    remove_socket(PoolAddress(folder, 0).endpoint)
    with suppress(FileNotFoundError):
        folder.rmdir()


def _as_error(who: str, message: Broken) -> Exception:
    kind: Any = getattr(errors, message.kind, WorkerError)
    error: Exception = kind(f"{who}: {message.reason}")
    return error
