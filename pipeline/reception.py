"""How the other end receives a connection that this one tries: what its monitor tells of it."""

import socket
from contextlib import suppress

import zmq
from zmq.utils.monitor import parse_monitor_message

Socket = zmq.Socket[bytes]

ONE_HAS_KEYS = "security.keys and security.peers belong into the configuration of both ends"
EVENTS = zmq.Event.HANDSHAKE_FAILED_NO_DETAIL | zmq.Event.HANDSHAKE_FAILED_PROTOCOL
EVENTS |= zmq.Event.HANDSHAKE_FAILED_AUTH

GREETING = b"\xff" + bytes(8) + b"\x7f\x03"
"""How a connection of ZMTP 3 opens; who hears it answers with 64 bytes."""
MECHANISM = slice(12, 32)
ASK_SECONDS = 1.0


class Reception:
    """Watches one socket that is about to connect; owned by the socket's thread.

    It connects to `address`, host and port; `public` is this end's key, None without keys.
    `refusal` is a definite no, after which ZeroMQ tries no more; `suspicion` what a connection may
    have been dropped for.
    """

    def __init__(self, socket: Socket, address: tuple[str, int], public: bytes | None) -> None:
        self._socket = socket
        self._address = address
        self._public = public
        self._offered: bytes | None = None
        """The mechanism there, once that was asked for."""
        self.monitor: Socket = socket.get_monitor_socket(EVENTS)
        self.refusal: str | None = None
        self.suspicion: str | None = None

    def look(self) -> None:
        """Take in what the monitor has told by now."""
        with suppress(zmq.Again):
            while True:
                event = parse_monitor_message(self.monitor.recv_multipart(zmq.NOBLOCK))
                self._hear(event["event"], event["value"])

    def _hear(self, event: int, value: int) -> None:
        match event:
            case zmq.Event.HANDSHAKE_FAILED_AUTH if self._public:
                key = self._public.decode()
                self.refusal = f"this end's public key {key} is not in its security.peers"
            case zmq.Event.HANDSHAKE_FAILED_PROTOCOL:
                if value == zmq.PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH:
                    self.refusal = self._mismatch()
            case zmq.Event.HANDSHAKE_FAILED_NO_DETAIL:
                self.suspicion = self._dropped()
                self._offered = self._offered or maybe_mechanism(self._address)
                if self._offered == (b"NULL" if self._public else b"CURVE"):
                    self.refusal = self._mismatch()

    def _mismatch(self) -> str:
        there, here = ("no keys", "some") if self._public else ("keys", "none")
        return f"it has {there}, this end has {here}; {ONE_HAS_KEYS}"

    def _dropped(self) -> str:
        if self._public:
            return "it drops the connection: is the key in security.peers its own?"
        return f"it drops the connection: has it keys? {ONE_HAS_KEYS}"

    def close(self) -> None:
        """Watch no more, before the socket is closed. Idempotent."""
        if not self.monitor.closed:
            self._socket.disable_monitor()
            self.monitor.close(0)


def maybe_mechanism(address: tuple[str, int]) -> bytes | None:
    """What is offered at an address: CURVE where there are keys, NULL where there are none.

    Of two ends that differ only the one that has the other's greeting first knows why, and hangs up
    before its own is out. So this connection never says what it offers itself.
    """
    greeting = b""
    with suppress(OSError), socket.create_connection(address, ASK_SECONDS) as asking:
        asking.sendall(GREETING)
        while len(greeting) < MECHANISM.stop and (more := asking.recv(64)):
            greeting += more
    return greeting[MECHANISM].rstrip(b"\0") if len(greeting) >= MECHANISM.stop else None
