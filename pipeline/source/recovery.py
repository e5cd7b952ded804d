"""What the source does about workers that are lost, connections that are cut, frames that are
overdue: makes sure that the old way is closed, then has redone what went by it.
"""

from collections.abc import Callable

import structlog

from pipeline.source.dispatcher import Dispatcher
from pipeline.source.overdue import Overdue
from pipeline.source.staff import Staff
from protocol.control import Endpoint
from protocol.errors import PeerLost, RemoteProtocolError
from protocol.limits import PAGE_BYTES
from protocol.uri import Uri
from workers.messages import Connect, Reconnect
from workers.pool import Pool


class Recovery:
    """The ways to the destination, and their repair; owned by the coordinator's thread."""

    def __init__(self, pool: Pool, dispatcher: Dispatcher, uri: Uri, now_ns: int) -> None:
        self._pool = pool
        self._dispatcher = dispatcher
        self._uri = uri
        self.staff = Staff(pool, dispatcher)
        self._overdue = Overdue(now_ns)
        self._endpoints: list[str] = []
        self._given_up_ns = now_ns

    def connect(self, endpoints: list[str]) -> None:
        """The destination has told where its decompress workers listen, by lane."""
        self._endpoints = [self._uri.reachable(endpoint) for endpoint in endpoints]
        self._pool.broadcast(Connect(self._endpoints))

    def move(self, message: Endpoint) -> None:
        """Another decompress worker takes a lane over."""
        if message.lane >= len(self._endpoints):
            raise RemoteProtocolError(f"an endpoint for lane {message.lane} that there is not")
        self._endpoints[message.lane] = self._uri.reachable(message.endpoint)
        self._pool.broadcast(Connect(self._endpoints))

    def take_on(self, worker: int) -> None:
        """A compress worker that takes the place of a lost one is up."""
        self._pool.send(worker, Connect(self._endpoints))
        self._dispatcher.add_worker(worker)

    def heard_cut(self, worker: int, lane: int) -> None:
        """A connection is gone, and with it what it had not delivered."""
        self._dispatcher.lose_lane(worker, lane, f"the connection of lane {lane} was cut")

    def check_workers(self, now_ns: int, tick: Callable[[], None]) -> None:
        """Ask the workers; replace those that are dead or hang, and redo what they had.

        `tick` is called while one is started.
        """
        self._pool.ask(now_ns)
        for found in self._pool.losses(now_ns):
            loss = found.while_at(self._dispatcher.task_of(found.worker))
            structlog.get_logger().warning(f"{loss.reason}; another one takes its place")
            self._pool.replace(loss, tick)
            self._dispatcher.lose_worker(loss.worker, loss.reason)
        self.staff.settle(tick)

    def check_given_up(self, now_ns: int, heard_ns: int) -> None:
        """PeerLost for a frame that was given up, once the peer was heard after that: one that
        is dead loses frames, too, and is to be called dead."""
        if self._dispatcher.given_up is None:
            self._given_up_ns = now_ns
        elif heard_ns > self._given_up_ns:
            raise PeerLost(self._dispatcher.given_up[1])

    def check_progress(self, now_ns: int, bandwidth: float) -> None:
        """Have the connection of the frame that everybody waits for opened anew, if it is
        overdue; `bandwidth` is guest bytes/ms."""
        head, out_bytes = self._dispatcher.head, self._dispatcher.pages_out * PAGE_BYTES
        overdue = self._overdue.is_overdue(now_ns, self._dispatcher.applied, out_bytes, bandwidth)
        if overdue and head is not None:
            self._pool.send(head.worker, Reconnect(head.lane))
