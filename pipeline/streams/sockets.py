"""The local sockets of a tunnel: the control connection, and the lanes of the workers.

At the source they are bound, as if the destination were here; at the destination they connect,
as if the source were. A lane is named by the number of the decompress worker at its end.
"""

from collections.abc import Container, Iterator
from contextlib import suppress

import zmq

from protocol.control import Endpoint, Welcome
from protocol.limits import MAX_CONTROL_BYTES
from protocol.stream import MAX_HEAD_BYTES, MAX_PAYLOAD_BYTES, Kind, Record
from protocol.uri import Uri, worker_at

HIGH_WATER = 4
"""Messages that may wait in each connection, so that a slow stream is felt at the sender."""
_GONE = zmq.Event.DISCONNECTED | zmq.Event.CONNECT_RETRIED

Socket = zmq.Socket[bytes]


class LocalSockets:
    """Owned by the tunnel's thread. `uri` has the socket that stands for the stream; `binds` says
    that this is the source."""

    def __init__(self, context: "zmq.Context[Socket]", uri: Uri, *, binds: bool) -> None:
        self._context = context
        self._uri = uri
        self.binds = binds
        self._lanes: dict[int, Socket] = {}
        self._monitors: dict[Socket, int] = {}
        self._gone: set[int] = set()
        self._greeted: set[int] = set()
        self._turn = 0
        self._control = self._open(uri.endpoint, MAX_CONTROL_BYTES)

    def _open(self, endpoint: str, most_bytes: int) -> Socket:
        socket = self._context.socket(zmq.DEALER)
        socket.sndhwm = socket.rcvhwm = HIGH_WATER
        socket.maxmsgsize = most_bytes
        if self.binds:
            socket.bind(endpoint)
        else:
            socket.connect(endpoint)
        return socket

    def note(self, message: object) -> None:
        """What the destination says of its workers: they are to be found here, too."""
        match message:
            case Welcome(endpoints=endpoints):
                named = endpoints
            case Endpoint(endpoint=endpoint):
                named = [endpoint]
            case _:
                return
        for worker in map(worker_at, named):
            if worker is not None and worker not in self._lanes:
                self._lanes[worker] = self._open_lane(worker)

    def _open_lane(self, worker: int) -> Socket:
        return self._open(self._uri.data_endpoint(worker), MAX_HEAD_BYTES + MAX_PAYLOAD_BYTES)

    @property
    def monitors(self) -> Iterator[Socket]:
        """What can be read when a worker has gone."""
        return iter(self._monitors)

    def drop_gone(self, ready: Container[object]) -> None:
        """Forget the lanes of workers that have gone: what is on its way to one is redone."""
        for monitor in [one for one in self._monitors if one in ready]:
            worker = self._monitors.pop(monitor)
            self._gone.add(worker)
            lane = self._lanes.pop(worker)
            lane.disable_monitor()
            monitor.close(0)
            lane.close(0)

    def maybe_target(self, record: Record) -> Socket | None:
        """Where a record that came belongs; None where nobody is there any more."""
        if record.kind is Kind.CONTROL:
            return self._control
        if record.lane in self._gone or self.binds:
            return None
        if record.lane not in self._lanes:
            lane = self._lanes[record.lane] = self._open_lane(record.lane)
            self._monitors[lane.get_monitor_socket(_GONE)] = record.lane
        return self._lanes[record.lane]

    @property
    def sources(self) -> list[Socket]:
        """Where something may come from: what is said first, then the lanes in turn."""
        lanes = list(self._lanes.values()) if self.binds else []
        self._turn += 1
        first = self._turn % len(lanes) if lanes else 0
        return [self._control, *lanes[first:], *lanes[:first]]

    def maybe_take(self, ready: Container[object]) -> Record | None:
        """The next message of this end, as a record; None where there is none.

        A lane is greeted once: behind it is one connection, whatever number of workers share it.
        """
        for socket in self.sources:
            if socket in ready:
                with suppress(zmq.Again):
                    parts = [part.buffer for part in socket.recv_multipart(zmq.NOBLOCK, copy=False)]
                    return self._recorded(socket, parts)
        return None

    def _recorded(self, socket: Socket, parts: list[memoryview]) -> Record | None:
        if socket is self._control:
            return Record(Kind.CONTROL, 0, parts)
        lane = next(worker for worker, one in self._lanes.items() if one is socket)
        if len(parts) == 1 and lane in self._greeted:
            return None
        self._greeted.add(lane)
        return Record(Kind.FRAME, lane, parts)
