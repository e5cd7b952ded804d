"""One end of a tunnel as a real process, the other one played by the test: what it lets through."""

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import psutil
import pytest
import zmq

from pipeline.streams.way import Way, way_to
from protocol.channel import Channel
from protocol.control import AnyMessage, Commit, Hello, Welcome
from protocol.errors import PeerLost
from protocol.frames import encode_hello
from protocol.stream import (
    RECORD,
    Content,
    Kind,
    Record,
    RecordReader,
    encode_preamble,
    encode_record,
)
from protocol.uri import Uri
from tests.faults.ends import spins
from tests.pipeline.guests.helpers import wait_until
from tests.protocol.samples import BY_NAME, SESSION

FRAME = [b"h" * 1000, bytes(256 << 10)]
ENVELOPE = Channel(SESSION).outgoing(BY_NAME["Hello"])
ENDPOINTS = ["ipc:///there/way.0", "ipc:///there/way.300"]
WELCOME = Welcome(endpoints=ENDPOINTS, window=10, codecs=["none"])


class Peer:
    """The other end of the stream, and a local socket of this end's choice."""

    def __init__(self, way: Way, stream: socket.socket) -> None:
        self.way = way
        self.stream = stream
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.control = self.connect(way.uri.endpoint)
        self._reader = RecordReader(Content.TUNNEL)
        self._channel = Channel(SESSION)
        stream.sendall(encode_preamble(Content.TUNNEL))

    def connect(self, endpoint: str) -> zmq.Socket[bytes]:
        """As a worker or the coordinator does."""
        local = self.context.socket(zmq.DEALER)
        local.linger, local.sndhwm = 0, 4
        local.connect(endpoint)
        return local

    def say(self, message: AnyMessage) -> bytes:
        """Send it through the stream."""
        envelope = self._channel.outgoing(message)
        record = Record(Kind.CONTROL, 0, [memoryview(envelope)])
        self.stream.sendall(encode_record(record) + envelope)
        return envelope

    def hear(self) -> Record:
        """The next record."""
        while True:
            count = self.stream.recv_into(self._reader.room)
            record = self._reader.took(count)
            if record is not None:
                return record

    def end(self) -> str:
        """Why the tunnel has ended."""
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            try:
                self.way.check()
            except PeerLost as error:
                return str(error)
            time.sleep(0.01)
        raise AssertionError("it does not end")


@contextmanager
def peer_of_the_source() -> Iterator[Peer]:
    here, there = socket.socketpair()
    with there, way_to(Uri("fd", fd=here.detach()), "source") as way:
        peer = Peer(way, there)
        try:
            yield peer
        finally:
            peer.context.destroy()


def test_words_and_frames_go_through(folder: Path) -> None:
    """A lane that ends at another worker, a second hello that the worker takes for damage."""
    with peer_of_the_source() as peer:
        peer.control.send(ENVELOPE)
        assert [bytes(part) for part in peer.hear().parts] == [ENVELOPE]
        envelope = peer.say(WELCOME)
        assert peer.control.recv() == envelope
        lanes = [peer.connect(peer.way.uri.reachable(WELCOME.endpoints[1])) for _ in range(2)]
        for lane in lanes:
            lane.send_multipart([encode_hello(SESSION, 0)])
            lane.send_multipart(FRAME)
        heard = [peer.hear() for _ in range(3)]
        assert {record.lane for record in heard} == {300}
        assert sorted(len(record.parts) for record in heard) == [1, 2, 2]
        assert [bytes(part) for part in heard[-1].parts] == FRAME
    assert folder.exists()


def test_who_sends_feels_a_stream_that_nobody_reads(folder: Path) -> None:
    """A tunnel that fills memory with what the other end is too slow for, or that spins."""
    with peer_of_the_source() as peer:
        peer.say(WELCOME)
        peer.control.recv()
        lane = peer.connect(peer.way.uri.reachable(WELCOME.endpoints[0]))
        sent = 0
        while lane.poll(1000, zmq.POLLOUT):
            lane.send_multipart(FRAME)
            sent += 1
            assert sent < 40, "without an end"
        assert not spins(time.sleep)
        peer.control.send(ENVELOPE)
        kinds = []
        while Kind.CONTROL not in kinds:
            kinds.append(peer.hear().kind)
        assert len(kinds) <= 6, "they wait behind the frames"
    assert folder.exists()


@pytest.mark.parametrize(
    ("sent", "told"),
    [
        (RECORD.pack(Kind.END, 1, 0, 8, 0) + bytes(8), "the end of a saved guest in it"),
        (RECORD.pack(Kind.FRAME, 2, 0, 1 << 30, 1), "are allowed"),
        (RECORD.pack(Kind.CONTROL, 1, 0, 99, 0) + bytes(98), "ended, in the middle of a record"),
        (b"", "the stream ended"),
    ],
)
def test_what_no_peer_sends(folder: Path, sent: bytes, told: str) -> None:
    """A tunnel that takes it, or that falls over it without a word."""
    with peer_of_the_source() as peer:
        peer.stream.sendall(sent)
        peer.stream.shutdown(socket.SHUT_WR)
        assert told in peer.end()
    assert folder.exists()


def test_what_a_stranger_says_is_for_the_coordinator_to_refuse(folder: Path) -> None:
    """A tunnel that dies of an envelope that it cannot read, or of a frame for the source."""
    with peer_of_the_source() as peer:
        for kind in (Kind.CONTROL, Kind.FRAME):
            record = Record(kind, 0, [memoryview(b"junk")])
            peer.stream.sendall(encode_record(record) + b"junk")
        assert peer.control.recv() == b"junk"
        envelope = peer.say(WELCOME)
        assert peer.control.recv() == envelope
        peer.way.check()
    assert folder.exists()


@pytest.mark.parametrize("shell", ["{}", "({}) & exit 0"])
def test_a_command_is_told_before_it_is_killed(folder: Path, shell: str) -> None:
    """A command that cannot be ended gently, because it has inherited who hears which signals,
    or because its shell has gone before it."""
    mark = folder / "mark"
    tell = f"trap 'echo told > {mark}; exit' TERM; echo up > {mark}; while :; do sleep 0.1; done"
    with way_to(Uri("exec", command=shell.format(tell)), "source"):
        wait_until(lambda: mark.exists() and mark.read_text() == "up\n", 5)
    assert mark.read_text() == "told\n"
    mark.unlink()


def test_a_worker_that_has_gone_holds_up_nobody(folder: Path) -> None:
    """Frames for a dead worker, behind which all that is said waits until both ends give up."""
    here, there = socket.socketpair()
    sent = Record(Kind.FRAME, 5, [memoryview(part) for part in FRAME])
    with (
        zmq.Context() as context,
        context.socket(zmq.ROUTER) as control,
        context.socket(zmq.ROUTER) as worker,
        there,
        way_to(Uri("fd", fd=here.detach()), "destination") as way,
    ):
        worker.rcvhwm = 1
        control.bind(way.uri.endpoint)
        worker.bind(way.uri.data_endpoint(5))
        stream = encode_preamble(Content.TUNNEL) + (encode_record(sent) + b"".join(FRAME)) * 30
        words = encode_record(Record(Kind.CONTROL, 0, [memoryview(ENVELOPE)])) + ENVELOPE
        sender = Thread(target=there.sendall, args=(stream + words,), daemon=True)
        sender.start()
        assert worker.poll(5000)
        assert not control.poll(500), "not held up: nothing is proved"
        worker.close(0)
        assert control.poll(5000), "held up for ever"
        assert control.recv_multipart()[-1] == ENVELOPE
        sender.join()
    assert folder.exists()


@pytest.mark.parametrize("said", [Hello, Commit])
def test_only_a_commit_saves_a_command(folder: Path, said: type[AnyMessage]) -> None:
    """A command with a guest in it that is killed, or one without a guest that lives on."""
    mark = folder / "pid"
    uri = Uri("exec", command=f"echo $$ > {mark}; printf 'PGFS\\1\\0\\1\\0'; exec sleep 30")
    with way_to(uri, "source") as way:
        wait_until(lambda: mark.exists() and bool(mark.read_text()), 5)
        command = psutil.Process(int(mark.read_text()))
        with zmq.Context() as context, context.socket(zmq.DEALER) as control:
            control.connect(way.uri.endpoint)
            control.send(Channel(SESSION).outgoing(BY_NAME[said.__name__]))
            control.linger = 1000
    assert command.is_running() == (said is Commit)
    if command.is_running():
        command.kill()
    mark.unlink()
