"""Which connections came to nothing, and why, from the events of a bound socket's monitor.

Pure: time and addresses are arguments. Events name a connection by its descriptor when it is
accepted and when it ends; one that failed ends at once, but for a key that was refused. Who was
refused for its key is told by who refused it, not here.
"""

import zmq

from workers.keys import HANDSHAKE_MS

PATIENCE_NS = HANDSHAKE_MS * 1_000_000 * 9 // 10
"""What ends later than that has run out of time."""

FAILED: dict[int, str] = {
    zmq.PROTOCOL_ERROR_ZMTP_CRYPTOGRAPHIC: "it expects another public key here",
    zmq.PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH: "only one of the two ends has keys",
}
OTHER_PROTOCOL = "it speaks another protocol"
SAID_NOTHING = f"no handshake within {HANDSHAKE_MS // 1000} s"
HUNG_UP = "it hung up within the handshake: has only one of the two ends keys?"

_FAILURES = zmq.Event.HANDSHAKE_FAILED_NO_DETAIL | zmq.Event.HANDSHAKE_FAILED_PROTOCOL
_FAILURES |= zmq.Event.HANDSHAKE_FAILED_AUTH
EVENTS = _FAILURES | zmq.Event.ACCEPTED | zmq.Event.DISCONNECTED | zmq.Event.HANDSHAKE_SUCCEEDED


class Handshakes:
    """The connections of one bound socket, by descriptor."""

    def __init__(self) -> None:
        self._open: dict[int, tuple[int, int]] = {}
        self._successes = 0
        self._refused_keys = 0
        self._failure: str | None = None

    def accepted(self, fd: int, now_ns: int) -> None:
        """Somebody has connected."""
        self._open[fd] = now_ns, self._successes

    def heard(self, event: int, value: int) -> None:
        """What befell a connection that is not named."""
        match event:
            case zmq.Event.HANDSHAKE_SUCCEEDED:
                self._successes += 1
            case zmq.Event.HANDSHAKE_FAILED_AUTH:
                self._refused_keys += 1
            case zmq.Event.HANDSHAKE_FAILED_PROTOCOL:
                self._failure = FAILED.get(value, OTHER_PROTOCOL)
            case zmq.Event.HANDSHAKE_FAILED_NO_DETAIL:
                self._failure = HUNG_UP

    def ended(self, fd: int, now_ns: int) -> str | None:
        """A connection has ended: why it came to nothing, None where it may have stood."""
        since_ns, successes = self._open.pop(fd, (now_ns, -1))
        failure, self._failure = self._failure, None
        if failure == HUNG_UP and now_ns - since_ns > PATIENCE_NS:
            return SAID_NOTHING
        if failure is not None or successes != self._successes:
            return failure
        if self._refused_keys:
            self._refused_keys -= 1
            return None
        return OTHER_PROTOCOL
