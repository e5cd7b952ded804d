"""A source that says and sends what a test wants, legal or not, to a real destination."""

import os
from collections import deque
from time import monotonic
from typing import TypeVar

import numpy as np
import zmq

from protocol import control as c
from protocol.channel import Channel
from protocol.devices import Section, encode_global_state, encode_sections
from protocol.frames import Batch, CodecId, PageKind, encode_batch, encode_hello
from protocol.uri import Uri
from tests.faults.memories import Words

ANSWER_S = 20.0
HEARTBEAT_S = 1.0

Answer = TypeVar("Answer", bound=c.Message)


class FakeSource:
    """One session with a destination; batches are of `batch_pages` pages from page 0 on.

    Greets the destination when it is made. A context manager.
    """

    def __init__(self, uri: Uri, content: Words, *, batch_pages: int = 4) -> None:
        self._content = content
        self._batch_pages = batch_pages
        self._session = os.urandom(16)
        self._channel = Channel(self._session)
        self._heard: deque[c.AnyMessage] = deque()
        self._spoke = monotonic()
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._control = self._connect(uri.endpoint)
        hello = c.Hello(
            name="fake",
            kind="synthetic",
            blocks=[c.BlockInfo("memory", len(content))],
            batch_pages=batch_pages,
            codec="none",
            verify="frames",
            connections=1,
            machine="",
            disks=[],
        )
        self.say(hello)
        self._lanes = [self._connect(endpoint) for endpoint in self.expect(c.Welcome).endpoints]
        for lane in self._lanes:
            lane.send_multipart([encode_hello(self._session, 0)])

    def _connect(self, endpoint: str) -> zmq.Socket[bytes]:
        socket = self._context.socket(zmq.DEALER)
        socket.linger = 0
        socket.connect(endpoint)
        return socket

    def __enter__(self) -> "FakeSource":
        return self

    def __exit__(self, *_: object) -> None:
        self._context.destroy()

    @property
    def batches(self) -> int:
        """How many frames it takes to send everything once."""
        return -(-len(self._content) // self._batch_pages)

    def say(self, message: c.AnyMessage) -> None:
        """Say it, whether the session allows it or not."""
        self._spoke = monotonic()
        self._control.send(self._channel.outgoing(message))

    def start_round(self) -> None:
        """Open the only round."""
        self.say(c.RoundStart(round_no=1, first_seq=1))

    def send_frames(self, *seqs: int) -> None:
        """Send these batches, in this order."""
        for seq in seqs:
            first = (seq - 1) * self._batch_pages
            data = self._content[first : first + self._batch_pages]
            batch = Batch(
                session=self._session,
                seq=seq,
                attempt=0,
                round_no=1,
                block=0,
                codec=CodecId.NONE,
                pages=np.arange(first, first + len(data), dtype=np.uint32),
                kinds=np.full(len(data), PageKind.DATA, np.uint8),
                hashes=None,
                payload=data.tobytes(),
            )
            lane = self._lanes[seq % len(self._lanes)]
            lane.send_multipart([encode_batch(batch, content_digest=True), batch.payload])

    def say_verify(self) -> None:
        """Ask whether all has arrived."""
        self.say(c.Verify(last_seq=self.batches, digests=[]))

    def send_devices(self) -> None:
        """Send a device, and that the guest is to run."""
        sections = [Section("counter", 0, 1, b"1234"), encode_global_state("running")]
        self.say(c.Devices(data=encode_sections(sections), last=True))

    def expect(self, *kinds: type[Answer]) -> Answer:
        """Wait for an answer of one of these kinds; AssertionError when it does not come."""
        answer = self.maybe_hear(*kinds, within_s=ANSWER_S)
        assert answer is not None, f"none of {kinds} came"
        return answer

    def maybe_hear(self, *kinds: type[Answer], within_s: float) -> Answer | None:
        """The next answer of these kinds, what comes before it is dropped; None: none in time."""
        deadline = monotonic() + within_s
        while True:
            while self._heard:
                if isinstance(message := self._heard.popleft(), kinds):
                    return message
            left_s = deadline - monotonic()
            if left_s <= 0:
                return None
            if monotonic() - self._spoke >= HEARTBEAT_S:
                self.say(c.Alive())
            if self._control.poll(int(min(left_s, HEARTBEAT_S / 4) * 1000)):
                heard = self._channel.incoming(self._control.recv())
                self._heard.extend([] if heard is None else [heard])
