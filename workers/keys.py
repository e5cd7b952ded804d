"""The keys of encrypted connections: what a socket needs of them, and the two ways to use them.

All are 40 characters of Z85. They reach a worker in its settings, through the pipe that starts it.
"""

from dataclasses import dataclass, field

import zmq

HANDSHAKE_MS = 5000
"""How long somebody may take from connecting to being let in."""

ZAP_DOMAIN = b"pageferry"
"""Enforced: without an answer of ours nobody is let in."""


@dataclass(frozen=True)
class KeyPair:
    """The keys of one end."""

    public: bytes
    secret: bytes = field(repr=False)


@dataclass(frozen=True)
class ServerKeys:
    """The destination's pair, and the public keys that it lets in."""

    pair: KeyPair
    peers: frozenset[bytes]


@dataclass(frozen=True)
class ClientKeys:
    """The source's pair, and the public key that the other end has to prove."""

    pair: KeyPair
    server: bytes


def secure_server(socket: zmq.Socket[bytes], keys: ServerKeys | None) -> None:
    """Let `socket` be bound to by those alone that have keys, where there are some, and by
    nobody who does not come to the point."""
    socket.handshake_ivl = HANDSHAKE_MS
    if keys is not None:
        socket.zap_domain = ZAP_DOMAIN
        socket.zap_enforce_domain = True
        socket.curve_server = True
        _take(socket, keys.pair)


def secure_client(socket: zmq.Socket[bytes], keys: ClientKeys | None) -> None:
    """Let `socket` connect to the owner of the server's key alone, where there are keys."""
    if keys is not None:
        socket.curve_serverkey = keys.server
        _take(socket, keys.pair)


def _take(socket: zmq.Socket[bytes], pair: KeyPair) -> None:
    socket.curve_publickey = pair.public
    socket.curve_secretkey = pair.secret
