"""The data connections of one compress worker, by lane, and what becomes of a cut one.

A connection that is lost takes the frames in it along without a word, so it is never used
again: the next frame goes over a new one, and the pool hears that the old one is cut.
"""

from collections.abc import Container

import zmq

from protocol.frames import encode_hello
from workers.link import PoolLink
from workers.messages import Connect, Cut, Reconnect

HIGH_WATER = 4
"""Frames that may wait in each connection's queue, so that a slow link is felt here."""

LOST = zmq.Event.DISCONNECTED | zmq.Event.HANDSHAKE_FAILED_NO_DETAIL
LOST |= zmq.Event.HANDSHAKE_FAILED_PROTOCOL | zmq.Event.HANDSHAKE_FAILED_AUTH

Socket = zmq.Socket[bytes]


class Lanes:
    """Connections that are made when they are first needed; owned by the worker's thread.

    All at once, 255 workers an end would open 65,025 of them before the first page.
    """

    def __init__(
        self, context: zmq.Context[Socket], link: PoolLink, session: bytes, worker: int
    ) -> None:
        self._context = context
        self._link = link
        self._hello = encode_hello(session, worker)
        self._endpoints: list[str] = []
        self._open: dict[int, Socket] = {}
        self._monitors: dict[int, Socket] = {}

    def socket(self, lane: int) -> Socket:
        """The connection of a lane, opened with our hello."""
        if lane not in self._open:
            self._open[lane], self._monitors[lane] = self._connect(self._endpoints[lane])
        return self._open[lane]

    def _connect(self, endpoint: str) -> tuple[Socket, Socket]:
        socket = self._context.socket(zmq.DEALER)
        socket.ipv6 = True
        socket.sndhwm = HIGH_WATER
        socket.linger = 0
        monitor = socket.get_monitor_socket(LOST)
        self._link.watch(monitor)
        socket.connect(endpoint)
        socket.send_multipart([self._hello])
        return socket, monitor

    def mend(self, ready: Container[object]) -> None:
        """Drop the connections that are lost, or that the pool wants dropped; `ready` is what
        the last wait found."""
        for lane in [lane for lane, monitor in self._monitors.items() if monitor in ready]:
            self._cut(lane)
        for order in self._link.take_orders():
            self._obey(order)

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
        socket, monitor = self._open.pop(lane), self._monitors.pop(lane)
        self._link.unwatch(monitor)
        socket.disable_monitor()
        monitor.close(0)
        socket.close(0)
        self._link.send(Cut(lane))
