"""A decompress worker: frames in, slots out; between frames it reads memory back.

Listens on an endpoint of its own. A frame is checked, decompressed into a slot of
shared memory that the receiver has granted, and reported; without a slot nothing is
read from the network, so that a slow receiver is felt at the source.
"""

from collections.abc import Container
from contextlib import suppress
from dataclasses import dataclass
from time import thread_time_ns

import numpy as np
import zmq

from protocol.digest import page_seed
from protocol.errors import FrameDamaged, MigrationError, RemoteProtocolError
from protocol.frame_opening import decode_batch, decode_hello, maybe_seq
from protocol.frames import Batch, FrameLimits
from protocol.uri import plain_endpoint
from workers.codecs import decompress
from workers.door import Door
from workers.keys import ServerKeys
from workers.link import PoolAddress, PoolLink, bind_privately, work
from workers.memory import PassedFd, mapped_bytes, maybe_page_hashes
from workers.messages import Arrived, Checked, Grant, ReadBack, Refused, Stop, Up
from workers.pages import TableHasher

DATA_HIGH_WATER = 2
"""Frames that may wait in each connection's queue; the window bounds them all together."""


@dataclass(frozen=True)
class DecompressSettings:
    """What a decompress worker is started with. Descriptors are duplicates of its own.

    `hashes` is the table of what the source says it sent, or None without verification.
    """

    address: PoolAddress
    endpoint: str
    limits: FrameLimits
    slots: PassedFd
    memory: tuple[PassedFd, ...]
    hashes: PassedFd | None
    keys: ServerKeys | None = None


def decompress_worker(settings: DecompressSettings) -> None:
    """The body of a decompress worker process."""
    work(settings.address, lambda context, link: DecompressWorker(settings, context, link).run())


class DecompressWorker:
    """One decompress worker; all of it belongs to its only thread."""

    def __init__(
        self,
        settings: DecompressSettings,
        context: zmq.Context[zmq.Socket[bytes]],
        link: PoolLink,
    ) -> None:
        self._settings = settings
        self._link = link
        self._data = context.socket(zmq.ROUTER)
        self._data.ipv6 = True
        self._data.rcvhwm = DATA_HIGH_WATER
        self._data.linger = 0
        self._data.maxmsgsize = 2 * settings.limits.payload_bytes + settings.limits.head_bytes
        self._door = self._hang_door(context)
        self._greeted: set[bytes] = set()
        self._slots = memoryview(mapped_bytes(settings.slots.fd))
        self._granted: list[int] = []
        self._read_backs: list[ReadBack] = []
        self._hasher = TableHasher(page_seed(settings.limits.session), comes_back=False)
        self._tables = maybe_page_hashes(settings.hashes, settings.limits.block_pages)

    def run(self) -> None:
        """Take frames and grants until the pool says stop."""
        self._link.send(Up(self._bind()))
        while True:
            ready = self._wait()
            self._attend(ready)
            if not self._hear():
                return
            if self._data in ready:
                self._take_frame()
            elif self._read_backs:
                self._read_back(self._read_backs.pop(0))

    def _hang_door(self, context: zmq.Context[zmq.Socket[bytes]]) -> Door | None:
        """At a tcp port; a UNIX socket is guarded by its file's mode."""
        if not self._settings.endpoint.startswith("tcp:"):
            return None
        door = Door(context, self._data, self._settings.keys)
        for socket in door.sockets:
            self._link.watch(socket)
        return door

    def _bind(self) -> str:
        bind_privately(self._data, self._settings.endpoint)
        endpoint = plain_endpoint(self._data.getsockopt_string(zmq.LAST_ENDPOINT))
        if self._door is not None:
            self._door.is_bound(endpoint)
        return endpoint

    def _attend(self, ready: Container[object]) -> None:
        if self._door is not None and any(socket in ready for socket in self._door.sockets):
            for refusal in self._door.attend():
                self._link.send(refusal)

    def _wait(self) -> Container[object]:
        """Wait for something to do; without a slot to fill that is no frame."""
        frames = [(self._data, zmq.POLLIN)] if self._granted else []
        return self._link.wait(*frames, timeout_ms=0 if self._read_backs else None)

    def _hear(self) -> bool:
        """Take what the pool says; False when it says stop."""
        while (message := self._link.maybe_receive()) is not None:
            match message:
                case Grant(slots):
                    self._granted += slots
                case ReadBack():
                    self._read_backs.append(message)
                case Stop():
                    return False
                case _:
                    raise TypeError(f"not for a decompress worker: {message}")
        return True

    def _take_frame(self) -> None:
        peer, *parts = self._data.recv_multipart(copy=False)
        began = thread_time_ns()
        try:
            self._take(peer.bytes, [part.buffer for part in parts], began)
        except MigrationError as error:
            damaged = isinstance(error, FrameDamaged)
            self._link.send(Refused(str(error), damaged, maybe_seq(parts[0].buffer)))

    def _take(self, peer: bytes, parts: list[memoryview], began: int) -> None:
        if peer not in self._greeted:
            self._greet(peer, parts)
            if peer not in self._greeted or len(parts) == 1:
                return
        if len(parts) != 2:
            raise FrameDamaged(f"damaged frame: {len(parts)} parts, a batch has 2")
        batch = decode_batch(parts[0], parts[1], self._settings.limits)
        slot = self._granted[-1]
        decompress(batch.codec, batch.payload, self._target(slot, batch))
        self._granted.pop()
        self._link.send_soon(_report(batch, slot, thread_time_ns() - began))

    def _greet(self, peer: bytes, parts: list[memoryview]) -> None:
        """Let a connection in that opens with this session's hello, or, where that was damaged,
        goes on with a frame of it; ignore any other."""
        with suppress(RemoteProtocolError):
            if len(parts) == 2:
                decode_batch(parts[0], parts[1], self._settings.limits)
            else:
                decode_hello(parts[0], self._settings.limits.session)
            self._greeted.add(peer)

    def _target(self, slot: int, batch: Batch) -> memoryview:
        start = slot * self._settings.limits.payload_bytes
        return self._slots[start : start + batch.unpacked_bytes]

    def _read_back(self, job: ReadBack) -> None:
        assert self._tables is not None, "reading back needs the table"
        pages = np.frombuffer(job.pages, np.uint32)
        fd = self._settings.memory[job.block].fd
        wrong = self._hasher.differing(fd, pages, self._tables[job.block])
        self._link.send(Checked(job.job, wrong.tobytes()))


def _report(batch: Batch, slot: int, busy_ns: int) -> Arrived:
    return Arrived(
        seq=batch.seq,
        attempt=batch.attempt,
        round_no=batch.round_no,
        block=batch.block,
        slot=slot,
        pages=batch.pages.tobytes(),
        kinds=batch.kinds.tobytes(),
        hashes=None if batch.hashes is None else batch.hashes.tobytes(),
        delta_bytes=batch.delta_bytes,
        busy_ns=busy_ns,
    )
