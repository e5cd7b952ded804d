"""The data connections of one compress worker, by lane, and what becomes of a cut one.

A connection that is lost takes the frames in it along without a word, so it is never used
again: the next frame goes over a new one, and the pool hears that the old one is cut. Nothing is
handed to one that does not stand yet, so that what cannot be reached loses no frames.
"""

from collections.abc import Container, Sequence
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic_ns

import zmq

from protocol.digest import Buffer
from protocol.frames import encode_hello
from workers.keys import ClientKeys, secure_client
from workers.link import PoolLink
from workers.messages import Connect, Cut, Reconnect

HIGH_WATER = 4
"""Frames that may wait in each connection's queue, so that a slow link is felt here."""

LOST = zmq.Event.DISCONNECTED | zmq.Event.HANDSHAKE_FAILED_NO_DETAIL
LOST |= zmq.Event.HANDSHAKE_FAILED_PROTOCOL | zmq.Event.HANDSHAKE_FAILED_AUTH

REACH_NS = 5_000_000_000
"""How long a connection may take: longer than it takes until a decompress worker that is dead or
hangs is replaced (4 s)."""

Socket = zmq.Socket[bytes]


class Unreachable(Exception):
    """No connection within the time; the message says to where."""


@dataclass
class Lane:
    """A connection, what tells of its loss, and since when it is tried, in monotonic ns.

    `greeted`: it stands, and has our hello.
    """

    socket: Socket
    monitor: Socket
    opened_ns: int
    greeted: bool = False


class Lanes:
    """Connections that are made when they are first needed; owned by the worker's thread.

    All at once, 255 workers an end would open 65,025 of them before the first page.
    """

    def __init__(
        self,
        context: zmq.Context[Socket],
        link: PoolLink,
        session: bytes,
        worker: int,
        keys: ClientKeys | None,
    ) -> None:
        self._context = context
        self._link = link
        self._keys = keys
        self._hello = encode_hello(session, worker)
        self._endpoints: list[str] = []
        self._open: dict[int, Lane] = {}

    def socket(self, lane: int) -> Socket:
        """The connection of a lane, to wait until it takes a frame."""
        return self._lane(lane).socket

    def try_send(self, lane: int, parts: Sequence[Buffer]) -> bool:
        """Hand a frame to the connection of a lane; False where it takes none now.

        Unreachable when it does not stand in time; the next frame tries anew.
        """
        way = self._lane(lane)
        try:
            self._greet(way)
            way.socket.send_multipart(parts, zmq.NOBLOCK)
        except zmq.Again:
            if not way.greeted and monotonic_ns() - way.opened_ns > REACH_NS:
                self._close(lane)
                raise Unreachable(
                    f"no connection to {self._endpoints[lane]} within {REACH_NS // 10**9} s"
                ) from None
            return False
        return True

    def _greet(self, way: Lane) -> None:
        if not way.greeted:
            way.socket.send_multipart([self._hello], zmq.NOBLOCK)
            way.greeted = True

    def _lane(self, lane: int) -> Lane:
        if lane not in self._open:
            self._open[lane] = self._connect(self._endpoints[lane])
        return self._open[lane]

    def _connect(self, endpoint: str) -> Lane:
        socket = self._context.socket(zmq.DEALER)
        socket.ipv6 = socket.immediate = True
        socket.sndhwm = HIGH_WATER
        socket.linger = 0
        secure_client(socket, self._keys)
        monitor = socket.get_monitor_socket(LOST)
        self._link.watch(monitor)
        socket.connect(endpoint)
        return Lane(socket, monitor, monotonic_ns())

    def mend(self, ready: Container[object]) -> None:
        """Drop the connections that are lost, or that the pool wants dropped; `ready` is what
        the last wait found."""
        for lane, way in list(self._open.items()):
            if way.monitor in ready:
                self._lose(lane, way)
        for order in self._link.take_orders():
            self._obey(order)

    def _lose(self, lane: int, way: Lane) -> None:
        """One that never stood is tried again by ZeroMQ itself."""
        if way.greeted:
            self._cut(lane)
        else:
            with suppress(zmq.Again):
                while True:
                    way.monitor.recv_multipart(zmq.NOBLOCK)

    def _obey(self, order: Connect | Reconnect) -> None:
        match order:
            case Connect(endpoints):
                self._move(endpoints)
            case Reconnect(lane) if lane in self._open:
                self._cut(lane)

    def _move(self, endpoints: list[str]) -> None:
        before, self._endpoints = self._endpoints, endpoints
        for lane in list(self._open):
            if before[lane] != endpoints[lane]:
                self._cut(lane)

    def _cut(self, lane: int) -> None:
        self._close(lane)
        self._link.send(Cut(lane))

    def _close(self, lane: int) -> None:
        way = self._open.pop(lane)
        self._link.unwatch(way.monitor)
        way.socket.disable_monitor()
        way.monitor.close(0)
        way.socket.close(0)
