"""Connections that come to nothing: the source knows why, and never waits for them for ever."""

import socket
from contextlib import closing
from threading import Thread
from time import monotonic, monotonic_ns

import pytest
import zmq

from pipeline.control_link import ControlLink
from protocol.control import Alive
from protocol.errors import PeerLost
from protocol.uri import parse_uri
from tests.faults.fake_peers import HELLO
from tests.protocol.samples import SESSION


def answer(listener: socket.socket, words: bytes) -> None:
    """Say `words` to whoever connects, until they hang up."""
    while True:
        try:
            accepted, _ = listener.accept()
        except OSError:
            return
        with accepted:
            accepted.sendall(words)
            while accepted.recv(64):
                pass


def test_who_is_no_destination() -> None:
    """A source that hangs, deaf to its user, since ZeroMQ has given its only connection up."""
    words = b"\xff" + bytes(8) + b"\x7f\x03\x00PLAIN" + bytes(47)
    with socket.create_server(("127.0.0.1", 0)) as listener, zmq.Context() as context:
        Thread(target=answer, args=(listener, words), daemon=True).start()
        uri = parse_uri(f"tcp:127.0.0.1:{listener.getsockname()[1]}")
        with closing(ControlLink.connect(context, uri, SESSION)) as link:
            link.send(HELLO)
            with pytest.raises(PeerLost, match="refuses the connection"):
                until_lost(link)
        listener.shutdown(socket.SHUT_RDWR)


def until_lost(link: ControlLink) -> None:
    """Be a source that waits for its welcome, and has much to say."""
    end = monotonic() + 10
    while monotonic() < end:
        link.socket.poll(50)
        assert list(link.receive()) == []
        link.send(Alive())
        link.tick(monotonic_ns())
