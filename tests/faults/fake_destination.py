"""A destination that keeps what it is sent and answers when a test wants it to, as a thread."""

from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread
from time import monotonic

import numpy as np
import zmq

from protocol import control as c
from protocol.channel import Channel, session_of
from protocol.errors import MigrationError
from protocol.frame_opening import decode_batch, decode_hello
from protocol.frames import Batch, FrameLimits, PageKind
from protocol.limits import PAGE_BYTES
from protocol.uri import Uri
from tests.faults.memories import Words
from workers.codecs import decompress

TURN_MS = 10
LINGER_MS = 200
HEARTBEAT_S = 1.0


class FakeDestination(Thread):
    """Takes frames while `taking` is set and acknowledges as far as `policy(self)` says.

    Everything is written by this thread alone; `frames` are in the order of their arrival,
    `payloads` what their data pages hold. Without a policy all is acknowledged.
    """

    def __init__(
        self,
        folder: Path,
        policy: Callable[["FakeDestination"], int] | None = None,
        *,
        window: int = 16,
    ) -> None:
        super().__init__(daemon=True)
        self.uri = Uri("unix", path=str(folder / "fake"))
        self.taking = Event()
        self.taking.set()
        self.window = window
        self.frames: list[Batch] = []
        self.payloads: list[bytes] = []
        self.rounds: list[tuple[c.RoundStart, int]] = []
        self.ending: c.Cancel | None = None
        self.heartbeats = 0
        self.arrived = 0
        self.applied = 0
        self._policy = policy or (lambda fake: fake.arrived)
        self._ahead: set[int] = set()
        self._closing = Event()
        self._spoke = monotonic()
        self._limits: FrameLimits | None = None
        self._channel: Channel | None = None

    def __enter__(self) -> "FakeDestination":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self.join()

    def memory(self) -> Words:
        """What all frames in their order make of an empty memory of one block."""
        assert self._limits is not None
        words = np.zeros((*self._limits.block_pages, PAGE_BYTES // 8), np.uint64)
        arrived = zip(self.frames, self.payloads, strict=True)
        for frame, payload in sorted(arrived, key=lambda pair: pair[0].seq):
            data = frame.kinds == PageKind.DATA
            words[frame.pages[~data]] = 0
            words[frame.pages[data]] = np.frombuffer(payload, np.uint64).reshape(
                -1, PAGE_BYTES // 8
            )
        return words

    def run(self) -> None:
        """Listen until the test is over; what is wrong with a frame ends it as a failure."""
        with zmq.Context() as context:
            self._control, self._data = (context.socket(zmq.ROUTER) for _ in range(2))
            self._data.rcvhwm = 1
            self._control.bind(self.uri.endpoint)
            self._data.bind(self.uri.data_endpoint(0))
            try:
                while not self._closing.is_set():
                    self._turn()
            except MigrationError as error:
                self._say(c.Failed(reason=str(error), cancelled=False))
            finally:
                context.destroy(linger=LINGER_MS)
                for path in (self.uri.path, f"{self.uri.path}.0"):
                    Path(path).unlink(missing_ok=True)

    def _turn(self) -> None:
        poller = zmq.Poller()
        poller.register(self._control, zmq.POLLIN)
        if self.taking.is_set():
            poller.register(self._data, zmq.POLLIN)
        ready = dict(poller.poll(TURN_MS))
        if self._control in ready:
            self._hear()
        if self._data in ready:
            self._take(*self._data.recv_multipart())
        self._acknowledge()
        if self._channel is not None and monotonic() - self._spoke >= HEARTBEAT_S:
            self._say(c.Alive())

    def _say(self, message: c.AnyMessage) -> None:
        assert self._channel is not None
        self._spoke = monotonic()
        self._control.send_multipart([self._route, self._channel.outgoing(message)])

    def _hear(self) -> None:
        self._route, envelope = self._control.recv_multipart()
        if self._channel is None:
            self._channel = Channel(session_of(envelope))
        match self._channel.incoming(envelope):
            case c.Hello() as hello:
                pages = tuple(block.pages for block in hello.blocks)
                self._limits = FrameLimits(self._channel.session, pages, hello.batch_pages)
                self._say(
                    c.Welcome(
                        endpoints=[self.uri.data_endpoint(0)], window=self.window, codecs=["none"]
                    )
                )
            case c.RoundStart() as start:
                self.rounds.append((start, self.applied))
            case c.Verify():
                self._say(c.Verified(mismatches=0))
            case c.Devices(last=True):
                self._say(c.Ready(load_ms=0.0))
            case c.Commit():
                self._say(c.Started(since_ms=0.0, running=True))
            case c.Cancel() as cancel:
                self.ending = cancel
            case c.Alive():
                self.heartbeats += 1

    def _take(self, _: bytes, head: bytes, payload: bytes | None = None) -> None:
        assert self._limits is not None, "a frame before the hello"
        if payload is None:
            decode_hello(head, self._limits.session)
            return
        batch = decode_batch(head, payload, self._limits)
        data = bytearray(batch.data_pages * PAGE_BYTES)
        decompress(batch.codec, batch.payload, memoryview(data))
        self.payloads.append(bytes(data))
        self.frames.append(batch)
        self._ahead.add(batch.seq)
        while self.arrived + 1 in self._ahead:
            self.arrived += 1

    def _acknowledge(self) -> None:
        upto = min(self._policy(self), self.arrived)
        if upto > self.applied and self.rounds:
            self.applied = upto
            self._say(c.Applied(seq=upto, decompress_ns=0, write_ns=0, uncompared=0))
