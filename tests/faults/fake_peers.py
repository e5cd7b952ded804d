"""Ends that speak the protocol as far as a test wants, and then do what no honest end does."""

import time
from types import TracebackType
from typing import TypeVar

import numpy as np
import xxhash
import zmq

from protocol import control as c
from protocol.channel import Channel, session_of
from protocol.control import AnyMessage
from protocol.digest import page_seed
from protocol.frames import Batch, CodecId, PageKind, encode_batch, encode_hello
from protocol.limits import PAGE_BYTES
from protocol.uri import Uri, parse_uri
from tests.protocol.samples import SESSION

PAGES = 256
BATCH_PAGES = 16
HELLO = c.Hello(
    name="forged",
    kind="file",
    blocks=[c.BlockInfo("memory", PAGES)],
    batch_pages=BATCH_PAGES,
    codec="none",
    verify="full",
    connections=1,
    machine="",
    disks=[],
)
ANSWER_S = 15.0

Wanted = TypeVar("Wanted", bound=c.Message)


class _Peer:
    """A control connection without rules; answers heartbeats only when it is told to listen."""

    def __init__(self, kind: int, session: bytes) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._sockets: list[zmq.Socket[bytes]] = []
        self.socket = self._open(kind)
        self.channel = Channel(session)
        self._route: list[bytes] = []

    def _open(self, kind: int) -> zmq.Socket[bytes]:
        socket = self._context.socket(kind)
        socket.linger = 500
        socket.ipv6 = True
        self._sockets.append(socket)
        return socket

    def send(self, message: AnyMessage) -> None:
        """Say `message`, legal or not."""
        self.send_raw(self.channel.outgoing(message))

    def send_raw(self, envelope: bytes) -> None:
        """Say these bytes."""
        self.socket.send_multipart([*self._route, envelope])

    def expect(self, kind: type[Wanted]) -> Wanted:
        """The next message of that kind, others skipped, heartbeats sent meanwhile."""
        until = time.monotonic() + ANSWER_S
        while time.monotonic() < until:
            if self.socket.poll(500):
                message = self._receive()
                if isinstance(message, kind):
                    return message
            else:
                self.send(c.Alive())
        raise AssertionError(f"no {kind.__name__} came")

    def _receive(self) -> AnyMessage | None:
        *self._route, envelope = self.socket.recv_multipart()
        return self.channel.incoming(envelope)

    def __exit__(
        self, kind: type[BaseException] | None, error: object, trace: TracebackType | None
    ) -> None:
        self._context.destroy(500)


class FakeSource(_Peer):
    """A source that has greeted nobody yet; `connect` opens a data connection."""

    def __init__(self, uri: Uri, session: bytes = SESSION) -> None:
        super().__init__(zmq.DEALER, session)
        self.socket.connect(uri.endpoint)

    def __enter__(self) -> "FakeSource":
        return self

    def greet(self, hello: c.Hello = HELLO) -> c.Welcome:
        """Say hello; the destination's welcome."""
        self.send(hello)
        return self.expect(c.Welcome)

    def connect(self, endpoint: str) -> zmq.Socket[bytes]:
        """A data connection, greeted."""
        lane = self._open(zmq.DEALER)
        lane.connect(endpoint)
        lane.send_multipart([encode_hello(SESSION, 0)])
        return lane


class FakeDestination(_Peer):
    """A destination that waits at `uri`; nobody listens at its data endpoints by itself."""

    def __init__(self, uri: Uri) -> None:
        super().__init__(zmq.ROUTER, bytes(16))
        self.socket.bind(uri.endpoint)
        bound = self.socket.getsockopt_string(zmq.LAST_ENDPOINT)
        self.uri = parse_uri(bound.replace("://", ":").replace("ipc:", "unix:"))

    def __enter__(self) -> "FakeDestination":
        return self

    def meet(self) -> c.Hello:
        """Wait for a source; its hello."""
        assert self.socket.poll(int(ANSWER_S * 1000)), "no source came"
        *self._route, envelope = self.socket.recv_multipart()
        self.channel = Channel(session_of(envelope))
        hello = self.channel.incoming(envelope)
        assert isinstance(hello, c.Hello)
        return hello

    def listen(self, endpoint: str) -> zmq.Socket[bytes]:
        """A data endpoint."""
        lane = self._open(zmq.ROUTER)
        lane.bind(endpoint)
        return lane


def frame(pages: list[int], *, payload: bytes | None = None) -> list[bytes]:
    """Head and payload of the first frame: data pages of ones, with their hashes."""
    page = b"\1" * PAGE_BYTES
    batch = Batch(
        session=SESSION,
        seq=1,
        attempt=0,
        round_no=1,
        block=0,
        codec=CodecId.NONE,
        pages=np.array(pages, np.uint32),
        kinds=np.full(len(pages), PageKind.DATA, np.uint8),
        hashes=np.full(len(pages), xxhash.xxh3_64_intdigest(page, page_seed(SESSION)), np.uint64),
        payload=page * len(pages) if payload is None else payload,
    )
    return [encode_batch(batch, content_digest=True), bytes(batch.payload)]
