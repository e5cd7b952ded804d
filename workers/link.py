"""A worker's side of its pool: the socket to it, and the watch on the process behind it.

A worker outlives nobody: when the process that started it is gone, so is the worker,
and it takes the pool's folder of sockets with it.
"""

import multiprocessing
import os
import shutil
import signal
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.util import get_temp_dir
from pathlib import Path
from typing import Any

import zmq

from protocol.errors import MigrationError
from workers.memory import keep_large_allocations
from workers.messages import (
    Broken,
    Connect,
    FromWorker,
    Ping,
    Pong,
    Reconnect,
    ToWorker,
    decode_to_worker,
    encode,
)

TOGETHER = 3
"""Messages of a worker that its pool hears at once: each wakes three threads. With 6 jobs at hand a
GiB by zstd took 7.2 s of processor time, 7.8 where each went by itself."""
ZMQ_DESCRIPTORS = 12
"""What a context and its first sockets open, seen: 9. libzmq ends a process that has none left."""


@dataclass(frozen=True)
class PoolAddress:
    """Where a worker finds its pool, and its number in it."""

    folder: Path
    worker: int

    @property
    def endpoint(self) -> str:
        """The pool's socket."""
        return f"ipc://{self.folder / 'pool'}"


class PoolGone(BaseException):
    """The process that started this worker has ended."""


class PoolLink:
    """The connection of one worker to its pool; owned by the worker's only thread."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], address: PoolAddress) -> None:
        self._socket = context.socket(zmq.DEALER)
        self._socket.identity = address.worker.to_bytes(4, "little")
        self._socket.linger = 1000
        self._socket.connect(address.endpoint)
        self._inbox: deque[ToWorker] = deque()
        self._outbox: list[bytes] = []
        self._poller = zmq.Poller()
        self._poller.register(self._socket, zmq.POLLIN)
        parent = multiprocessing.parent_process()
        assert parent is not None, "a worker is started by a pool"
        self._sentinel = parent.sentinel
        self._poller.register(self._sentinel, zmq.POLLIN)

    def watch(self, socket: zmq.Socket[bytes]) -> None:
        """Let every wait end when `socket` can be read, too."""
        self._poller.register(socket, zmq.POLLIN)

    def unwatch(self, socket: zmq.Socket[bytes]) -> None:
        """Undo `watch`, before `socket` is closed."""
        self._poller.unregister(socket)

    def wait(
        self, *sockets: tuple[zmq.Socket[bytes], int], timeout_ms: int | None = None
    ) -> Mapping[object, int]:
        """Wait until one of `sockets` is ready for its event, one that is watched can be read,
        or the pool has said something; what is ready, nothing when the time is up.

        PoolGone as soon as the pool's process has ended.
        """
        for socket, event in sockets:
            self._poller.register(socket, event)
        try:
            ready = self._ready(timeout_ms)
        finally:
            for socket, _ in sockets:
                self._poller.unregister(socket)
        if self._sentinel in ready:
            raise PoolGone
        if self._socket in ready:
            self._take_in()
        return ready

    def _ready(self, timeout_ms: int | None) -> dict[Any, int]:
        """What is ready; before a wait the pool hears all that was said."""
        if self._outbox:
            ready = dict(self._poller.poll(0))
            if ready:
                return ready
            self._flush()
        return dict(self._poller.poll(timeout_ms))

    def _take_in(self) -> None:
        """Take what the pool has said into the inbox; whether we still hear is answered here."""
        with suppress(zmq.Again):
            while True:
                for body in self._socket.recv_multipart(zmq.NOBLOCK):
                    self._hear(decode_to_worker(body))

    def _hear(self, message: ToWorker) -> None:
        if isinstance(message, Ping):
            self.send(Pong())
        else:
            self._inbox.append(message)

    def wait_for_message(self) -> Mapping[object, int]:
        """As `wait`, and not at all where a message of the pool is at hand: of those there are
        as many as its owner gives in advance, so that pings and cuts wait no longer."""
        return {} if self._inbox else self.wait()

    def maybe_receive(self) -> ToWorker | None:
        """The next message of the pool, if a wait has taken one in."""
        return self._inbox.popleft() if self._inbox else None

    def take_orders(self) -> list[Connect | Reconnect]:
        """What the pool says of connections, past the jobs that wait before it."""
        taken = [message for message in self._inbox if isinstance(message, Connect | Reconnect)]
        for message in taken:
            self._inbox.remove(message)
        return taken

    def send(self, message: FromWorker) -> None:
        """Tell the pool, now."""
        self._outbox.append(encode(message))
        self._flush()

    def send_soon(self, message: FromWorker) -> None:
        """Tell it with what is said next, before this end waits at the latest."""
        self._outbox.append(encode(message))
        if len(self._outbox) >= TOGETHER:
            self._flush()

    def _flush(self) -> None:
        self._socket.send_multipart(self._outbox)
        self._outbox = []


def bind_privately(socket: zmq.Socket[bytes], endpoint: str) -> None:
    """Bind; the file of a UNIX socket is for its owner alone, whatever the umask is."""
    before = os.umask(0o177)
    try:
        socket.bind(endpoint)
    finally:
        os.umask(before)


def remove_socket(endpoint: str) -> None:
    """Remove the file of a UNIX socket that was bound to `endpoint`: libzmq leaves it."""
    scheme, _, path = endpoint.partition("://")
    if scheme == "ipc":
        Path(path).unlink(missing_ok=True)


def work(address: PoolAddress, body: Callable[[Any, PoolLink], None]) -> None:
    """Run `body(context, link)` as a worker process: signals, allocator, errors, the end."""
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    keep_large_allocations()
    with zmq.Context() as context:
        link = PoolLink(context, address)
        try:
            body(context, link)
        except PoolGone:
            for folder in (address.folder, get_temp_dir()):  # its fork server's socket, too
                shutil.rmtree(folder, ignore_errors=True)
        except (MigrationError, OSError) as error:
            link.send(Broken(type(error).__name__, str(error)))
        except Exception as error:
            link.send(Broken("WorkerError", f"{type(error).__name__}: {error}"))
            raise
        finally:
            context.destroy()
