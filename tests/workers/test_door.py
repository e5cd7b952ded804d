"""The door of a port: real sockets with the right key, another one, none, and nothing to say."""

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest
import zmq

from workers.door import Door
from workers.keys import ClientKeys, KeyPair, ServerKeys, secure_client
from workers.messages import TurnedAway

Context = zmq.Context[zmq.Socket[bytes]]


def pair() -> KeyPair:
    return KeyPair(*zmq.curve_keypair())


HERE, LISTED, OTHER = pair(), pair(), pair()


class Port:
    """A ROUTER with a door, which gives up on the silent after 0.3 s."""

    def __init__(self, context: Context, keys: ServerKeys | None) -> None:
        self.socket = context.socket(zmq.ROUTER)
        self.door = Door(context, self.socket, keys)
        self.socket.handshake_ivl = 300
        self.socket.bind("tcp://127.0.0.1:*")
        self.endpoint = self.socket.getsockopt_string(zmq.LAST_ENDPOINT)
        self.door.is_bound(self.endpoint)
        self.turned_away: list[TurnedAway] = []

    @property
    def number(self) -> int:
        """The tcp port."""
        return int(self.endpoint.rpartition(":")[2])

    def attend(self, until: Callable[[], object], within_s: float = 5.0) -> None:
        """Do what an owner's poll does."""
        end = time.monotonic() + within_s
        while not until() and time.monotonic() < end:
            zmq.select([self.socket, *self.door.sockets], [], [], 0.05)
            self.turned_away += self.door.attend()

    def close(self) -> None:
        """Close the door, then the port."""
        self.door.close()
        self.socket.close(0)


@pytest.fixture
def port() -> Iterator[Port]:
    keys = ServerKeys(HERE, frozenset({LISTED.public}))
    with zmq.Context() as context, closing(Port(context, keys)) as made:
        yield made


def client(port: Port, keys: ClientKeys | None, until: Callable[[], object]) -> bool:
    """Whether somebody with `keys` was heard, while the door is attended to."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
        dealer.linger = 0
        secure_client(dealer, keys)
        dealer.connect(port.endpoint)
        dealer.send(b"hello")
        port.attend(lambda: port.socket.poll(0) or until())
    return bool(port.socket.poll(0))


def test_a_listed_key_comes_in(port: Port) -> None:
    """A door that lets in nobody."""
    assert client(port, ClientKeys(LISTED, HERE.public), lambda: False)
    assert port.turned_away == []


def test_a_key_that_is_not_listed(port: Port) -> None:
    """Encryption taken for authentication; a refusal without who and why."""
    assert not client(port, ClientKeys(OTHER, HERE.public), lambda: port.turned_away)
    port.attend(lambda: False, 0.3)
    (refusal,) = port.turned_away
    assert refusal.address == "127.0.0.1"
    assert OTHER.public.decode() in refusal.reason


def test_no_key(port: Port) -> None:
    """A connection in plain text let in beside the encrypted ones."""
    with socket.create_connection(("127.0.0.1", port.number)) as plain:
        plain.sendall(b"\xff" + bytes(8) + b"\x7f\x03\x00NULL" + bytes(48))
        port.attend(lambda: port.turned_away)
        (refusal,) = port.turned_away
        assert "only one of the two ends" in refusal.reason
        assert refusal.address == f"127.0.0.1:{plain.getsockname()[1]}"


def test_who_expects_another_key_here(port: Port) -> None:
    """A source that is mistaken about the destination, told as noise."""

    def told() -> list[TurnedAway]:
        found = [one for one in port.turned_away if "another public key" in one.reason]
        return [one for one in found if one.address.startswith("127.0.0.1:")]

    assert not client(port, ClientKeys(LISTED, OTHER.public), told)
    assert told(), port.turned_away


def test_who_says_nothing(port: Port) -> None:
    """Descriptors held for ever by who never speaks, and nobody knows whose."""
    with socket.create_connection(("127.0.0.1", port.number)) as silent:
        port.attend(lambda: port.turned_away)
        (refusal,) = port.turned_away
        assert refusal.address == f"127.0.0.1:{silent.getsockname()[1]}"
        silent.settimeout(2)
        while silent.recv(100):
            pass


def test_who_says_nothing_where_another_one_was(port: Port) -> None:
    """The address of one whose descriptor was another connection's until just now, lost."""
    socket.create_connection(("127.0.0.1", port.number)).close()
    time.sleep(0.1)  # the door hears of both at once
    with socket.create_connection(("127.0.0.1", port.number)) as silent:
        time.sleep(0.1)
        name = f"127.0.0.1:{silent.getsockname()[1]}"
        port.attend(lambda: name in {one.address for one in port.turned_away}, 1.0)
        assert name in {one.address for one in port.turned_away}, port.turned_away


def test_who_speaks_another_protocol(port: Port) -> None:
    """A scanner that nobody sees."""
    with socket.create_connection(("127.0.0.1", port.number)) as other:
        other.sendall(b"GET / HTTP/1.1\r\n\r\n" + bytes(4096))
        port.attend(lambda: port.turned_away)
    assert len(port.turned_away) == 1


def test_nobody_comes_in_while_nobody_answers() -> None:
    """A door that stands open where the answers to ZAP are not there (any more)."""
    with zmq.Context() as context:
        made = Port(context, ServerKeys(HERE, frozenset({LISTED.public})))
        with closing(made):
            made.door.sockets[1].close(0)
            with zmq.Context() as there, there.socket(zmq.DEALER) as dealer:
                dealer.linger = 0
                secure_client(dealer, ClientKeys(LISTED, HERE.public))
                dealer.connect(made.endpoint)
                dealer.send(b"hello")
                assert not made.socket.poll(700)
