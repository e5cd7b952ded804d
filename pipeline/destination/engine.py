"""What the destination has open while a guest arrives, and the ears of the receiver.

One poll over the control connection and the decompress workers. Frames go to the
reassembly, read-backs to idle workers; what the source says is kept until the
receiver looks. Decides nothing.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from threading import Event
from time import monotonic_ns

import zmq

from pipeline.config.model import Parameters
from pipeline.control_link import ControlLink, check_free
from pipeline.destination.landing import Landing
from pipeline.destination.read_back import ReadBackList
from pipeline.destination.reassembly import GRANTS, Reassembly
from pipeline.extents import decode_extents
from pipeline.guests.base import GuestBlock
from protocol import control as c
from protocol.errors import Cancelled, ConfigError, PeerLost, RemoteProtocolError
from protocol.frames import FrameLimits
from protocol.limits import MAX_DEVICE_BYTES
from protocol.session import Stage
from protocol.uri import Uri
from workers.decompress import DecompressSettings, decompress_worker
from workers.link import remove_socket
from workers.memory import PassedFd, page_hashes, shared_memory
from workers.messages import Arrived, Checked, FromWorker, Grant, Refused
from workers.pages import ZERO_HASH, Hashes
from workers.pool import Pool

POLL_MS = 50
WINDOW_BYTES = 8 << 20
"""Raw bytes that may be out; 32 frames of 256 KiB. What is out when the guest stops is
downtime, what is not out is a stage that starves."""

ACKNOWLEDGE_FRAMES = 8
"""A quarter of the window: the source never waits for room, and hears an eighth of what it
would if each frame were acknowledged (a control message costs both ends some 40 us)."""

ACKNOWLEDGE_MS = 1
"""How long an idle receiver waits for more frames; what that adds to a fence."""

ACKNOWLEDGE_LATE_NS = 5_000_000
"""After this long even a receiver that is busy reading back acknowledges what there is."""

APPLYING = (Stage.MOVING, Stage.VERIFYING)
"""Where the session lets the destination acknowledge: the first frames of a round may be
here before the message that opens it."""


class IncomingEngine:
    """The open parts of one incoming migration; owned by the receiver's thread.

    `expected` is what the source says it sent, uint64 of shape (pages,) for each block,
    shared with the workers; None without full verification.
    """

    reassembly: Reassembly

    def __init__(self, cancel: Event) -> None:
        self._cancel = cancel
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._poller = zmq.Poller()
        self._fds: list[int] = []
        self._data_endpoints: list[str] = []
        self._landings: list[Landing] = []
        self._asking: set[int] = set()
        self._used: dict[int, int] = {}
        self._pool: Pool | None = None
        self._acknowledged = 0
        self._acknowledged_ns = 0
        self._decompress_ns = 0
        self.read_back: ReadBackList | None = None
        self.expected: list[Hashes] | None = None
        self.hello: c.Hello | None = None
        self.verify: c.Verify | None = None
        self.devices = bytearray()
        self.devices_complete = False
        self.committed = False

    def listen(self, uri: Uri) -> str:
        """Bind the control connection; where it is."""
        try:
            self.link = ControlLink.bind(self._context, uri)
        except ConfigError:
            self._context.destroy()
            raise
        self._poller.register(self.link.socket, zmq.POLLIN)
        return self.link.endpoint

    def prepare(
        self, uri: Uri, hello: c.Hello, blocks: list[GuestBlock], parameters: Parameters
    ) -> None:
        """Start the decompress workers over `blocks`, give them slots, welcome the source."""
        block_pages = tuple(block.pages for block in blocks)
        limits = FrameLimits(self.link.session_id, block_pages, hello.batch_pages)
        workers = parameters.decompress_threads
        self._data_endpoints = _free_endpoints(uri, workers)
        window = max(WINDOW_BYTES // limits.payload_bytes, 2 * (hello.connections + workers))
        self._landings = [Landing(block) for block in blocks]
        hashes = self._expect_hashes(block_pages) if hello.verify == "full" else None
        self.reassembly = Reassembly(self._landings, limits, window, workers, self.expected)
        self._pool = Pool(self._context, "decompress")
        self._poller.register(self._pool.socket, zmq.POLLIN)
        self._pool.start(
            workers,
            decompress_worker,
            lambda address: DecompressSettings(
                address=address,
                endpoint=self._data_endpoints[address.worker],
                limits=limits,
                slots=PassedFd(self.reassembly.fd),
                memory=tuple(PassedFd(block.fd) for block in blocks),
                hashes=hashes,
            ),
            self._hear_and_tick,
        )
        for sentinel in self._pool.sentinels:
            self._poller.register(sentinel, zmq.POLLIN)
        for worker in self._pool.workers:
            self._pool.send(worker, Grant(self.reassembly.grant(GRANTS)))
        endpoints = [self._pool.endpoints[worker] for worker in self._pool.workers]
        self.link.send(c.Welcome(endpoints=endpoints, window=window))

    def _expect_hashes(self, block_pages: tuple[int, ...]) -> PassedFd:
        fd = shared_memory("expected", 8 * sum(block_pages))
        self._fds.append(fd)
        self.expected = page_hashes(fd, block_pages)
        for table in self.expected:
            table[:] = ZERO_HASH
        self.read_back = ReadBackList(self._landings, self.expected)
        return PassedFd(fd)

    def wait(self, until: Callable[[], bool]) -> None:
        """Turn until `until` holds; the errors of workers, peer and user come out here."""
        while not until():
            self._turn()

    def _turn(self) -> None:
        wait_ms = POLL_MS
        if self._pool is not None:
            self._ask_idle(self._pool)
            wait_ms = ACKNOWLEDGE_MS if self._unacknowledged else POLL_MS
        ready = dict(self._poller.poll(wait_ms))
        if self._pool is not None:
            self._hear_workers(self._pool, ready)
            self._acknowledge(idle=not ready)
        if self.link.socket in ready:
            self._hear_link()
        self._tick()

    def _hear_and_tick(self) -> None:
        """What must go on while the pool starts, however long that takes."""
        self._hear_link()
        self._tick()

    def _hear_link(self) -> None:
        for message in self.link.receive():
            self._hear_peer(message)

    def _hear_workers(self, pool: Pool, ready: Mapping[object, int]) -> None:
        if pool.socket in ready:
            for worker, message in pool.receive():
                self._hear_worker(pool, worker, message)
        if not ready.keys().isdisjoint(pool.sentinels):
            pool.check()

    def _tick(self) -> None:
        self.link.tick(monotonic_ns())
        if self._cancel.is_set() and not self.committed:
            raise Cancelled("cancelled at the destination")

    def _hear_worker(self, pool: Pool, worker: int, message: FromWorker) -> None:
        match message:
            case Arrived():
                self._decompress_ns += message.busy_ns
                landed = self.reassembly.take(message)
                self._grant(pool, worker)
                if self.read_back is not None:
                    for block, pages in landed:
                        self.read_back.wrote(block, pages)
            case Checked():
                assert self.read_back is not None
                self._asking.discard(worker)
                self.read_back.heard(message)
            case Refused(reason=reason):
                raise RemoteProtocolError(reason)
            case _:
                raise TypeError(f"not from a decompress worker: {message}")

    def _grant(self, pool: Pool, worker: int) -> None:
        """A worker has used a slot: give it two new ones for every two."""
        self._used[worker] = self._used.get(worker, 0) + 1
        if self._used[worker] == GRANTS // 2:
            self._used[worker] = 0
            pool.send(worker, Grant(self.reassembly.grant(GRANTS // 2)))

    @property
    def _unacknowledged(self) -> int:
        """Frames that are in memory and that the source does not know of."""
        return self.reassembly.applied - self._acknowledged

    def _acknowledge(self, *, idle: bool) -> None:
        """Tell the source how far memory is: every few frames, or when nothing more comes."""
        late = monotonic_ns() - self._acknowledged_ns > ACKNOWLEDGE_LATE_NS
        due = 1 if idle or late else ACKNOWLEDGE_FRAMES
        if self._unacknowledged < due or self.link.session.stage not in APPLYING:
            return
        self._acknowledged_ns = monotonic_ns()
        applied = self._acknowledged = self.reassembly.applied
        self.link.send(
            c.Applied(
                seq=applied,
                decompress_ns=self._decompress_ns,
                write_ns=self.reassembly.write_ns,
                uncompared=self.read_back.uncompared if self.read_back else 0,
            )
        )

    def _ask_idle(self, pool: Pool) -> None:
        """Give each worker that has none a piece of memory to read back."""
        if self.read_back is None:
            return
        for worker in pool.workers:
            if worker not in self._asking and (job := self.read_back.maybe_next()):
                self._asking.add(worker)
                pool.send(worker, job)

    def _hear_peer(self, message: c.AnyMessage) -> None:
        match message:
            case c.Hello():
                self.hello = message
            case c.Holes(block=block, extents=extents):
                self._clear(block, extents)
            case c.Verify():
                self.verify = message
            case c.Devices(data=data, last=last):
                self._take_devices(data, last=last)
            case c.Commit():
                self.committed = True
                self._stop_listening_to_workers()
            case c.Cancel(reason=reason, failed=failed):
                raise PeerLost(f"the source failed: {reason}") if failed else Cancelled(reason)

    def _clear(self, block: int, extents: bytes) -> None:
        if block >= len(self._landings):
            raise RemoteProtocolError(f"holes in unknown block {block}")
        landing = self._landings[block]
        landing.clear(decode_extents(extents, landing.pages))

    def _stop_listening_to_workers(self) -> None:
        """Neither a cancel nor a worker's end decides any more, now that the guest is ours."""
        if self._pool is not None:
            for source in (self._pool.socket, *self._pool.sentinels):
                self._poller.unregister(source)

    def _take_devices(self, data: bytes, *, last: bool) -> None:
        if len(self.devices) + len(data) > MAX_DEVICE_BYTES:
            raise RemoteProtocolError(f"more than {MAX_DEVICE_BYTES} bytes of device state")
        self.devices += data
        self.devices_complete = last

    def say_goodbye(self, reason: str, *, cancelled: bool) -> None:
        """Tell the source that it is over, where one is there and does not know."""
        if self.link.session.owes_ending:
            self.link.send(c.Failed(reason=reason[:4000], cancelled=cancelled))

    def close(self) -> None:
        """End workers, sockets and shared memory. Idempotent."""
        if self._pool is not None:
            self._pool.stop()
            for endpoint in self._data_endpoints:
                remove_socket(endpoint)
            self.reassembly.close()
        self.link.close()
        self._context.destroy()
        while self._fds:
            os.close(self._fds.pop())


def _free_endpoints(uri: Uri, workers: int) -> list[str]:
    """Where the decompress workers will listen; ConfigError where something else is there."""
    endpoints = [uri.data_endpoint(worker) for worker in range(workers)]
    if uri.scheme == "unix":
        for endpoint in endpoints:
            check_free(Path(endpoint.removeprefix("ipc://")))
    return endpoints
