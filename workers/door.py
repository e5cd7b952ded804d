"""The door of a bound socket: who has a listed key comes in; who does not is turned away, and
told of.

ZAP (ZeroMQ's RFC 27) is answered here and not by pyzmq's authenticator, which wants an event
loop or a thread of its own and keeps the address to itself. The owner's poll does.
"""

from collections.abc import Iterator
from contextlib import suppress
from time import monotonic_ns
from typing import Any

import zmq
from zmq.utils import z85
from zmq.utils.monitor import parse_monitor_message

from workers.addresses import Closed, maybe_peer, plain_host
from workers.handshakes import EVENTS, Handshakes
from workers.keys import ServerKeys, secure_server
from workers.messages import TurnedAway

Socket = zmq.Socket[bytes]
ZAP_ENDPOINT = "inproc://zeromq.zap.01"
UNKNOWN = "an address that is gone"
ENDED = zmq.Event.DISCONNECTED


class Door:
    """Watches one socket, which must not be bound yet; owned by the socket's thread.

    One to a context where there are keys. `sockets` are for the owner's poll set: where one can
    be read, `attend` is due.
    """

    def __init__(
        self, context: zmq.Context[Socket], socket: Socket, keys: ServerKeys | None
    ) -> None:
        secure_server(socket, keys)
        self._socket = socket
        self._keys = keys
        self._zap = _zap(context) if keys is not None else None
        self._monitor: Socket = socket.get_monitor_socket(EVENTS)
        self.sockets = [self._monitor] if self._zap is None else [self._monitor, self._zap]
        self._handshakes = Handshakes()
        self._peers: dict[int, str | None] = {}
        self._port = 0
        self._closed = Closed(0)

    def is_bound(self, endpoint: str) -> None:
        """The socket listens, at `endpoint`."""
        self._port = int(endpoint.rpartition(":")[2])
        self._closed = Closed(self._port)

    def attend(self) -> list[TurnedAway]:
        """Answer for those who wait at the door; who was turned away since the last time."""
        turned_away = [] if self._zap is None else list(self._answer(self._zap))
        events = [(event["event"], event["value"]) for event in _events(self._monitor)]
        ends = {value: at for at, (event, value) in enumerate(events) if event == ENDED}
        heard = [
            self._hear(event, value, is_gone=ends.get(value, -1) > at)
            for at, (event, value) in enumerate(events)
        ]
        return turned_away + [refusal for refusal in heard if refusal is not None]

    def _answer(self, zap: Socket) -> Iterator[TurnedAway]:
        with suppress(zmq.Again):
            while True:
                version, request, _, address, _, mechanism, *keys = zap.recv_multipart(zmq.NOBLOCK)
                known = mechanism == b"CURVE" and len(keys) == 1 and self._knows(keys[0])
                answer = [b"200", b"OK"] if known else [b"400", b"not let in"]
                zap.send_multipart([version, request, *answer, b"", b""])
                if not known:
                    shown = z85.encode(keys[0]).decode() if keys else "none"
                    reason = f"its public key {shown} is not in security.peers"
                    yield TurnedAway(plain_host(address.decode()), reason)

    def _knows(self, key: bytes) -> bool:
        assert self._keys is not None, "only who has keys is asked"
        return z85.encode(key) in self._keys.peers

    def _hear(self, event: int, value: int, *, is_gone: bool) -> TurnedAway | None:
        """`is_gone`: the descriptor is closed by now, and may be another connection's."""
        match event:
            case zmq.Event.ACCEPTED:
                self._handshakes.accepted(value, monotonic_ns())
                self._peers[value] = None if is_gone else maybe_peer(value, self._port)
            case zmq.Event.DISCONNECTED:
                return self._ended(value)
            case _:
                self._handshakes.heard(event, value)
        return None

    def _ended(self, fd: int) -> TurnedAway | None:
        reason, peer = self._handshakes.ended(fd, monotonic_ns()), self._peers.pop(fd, None)
        if peer is not None:
            self._closed.skip(peer)
        if reason is None:
            return None
        return TurnedAway(peer or self._closed.maybe_next(monotonic_ns()) or UNKNOWN, reason)

    def close(self) -> None:
        """Watch no more, before the socket is closed. Idempotent."""
        if not self._monitor.closed:
            self._socket.disable_monitor()
            for socket in self.sockets:
                socket.close(0)


def _zap(context: zmq.Context[Socket]) -> Socket:
    zap = context.socket(zmq.REP)
    zap.linger = 0
    zap.bind(ZAP_ENDPOINT)
    return zap


def _events(monitor: Socket) -> Iterator[dict[str, Any]]:
    with suppress(zmq.Again):
        while True:
            yield dict(parse_monitor_message(monitor.recv_multipart(zmq.NOBLOCK)))
