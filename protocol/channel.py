"""Numbers and acknowledgements for control messages, so that none is lost or heard twice.

Pure: bytes in, messages out. `unacknowledged()` can be sent again at any time: what the
other end has heard already is dropped there by its number.
"""

import struct
from collections import deque
from itertools import islice

from protocol.control import Alive, AnyMessage, decode_message, encode_message
from protocol.digest import DIGEST_BYTES, digest_of
from protocol.errors import FrameDamaged, RemoteProtocolError
from protocol.limits import MAX_CONTROL_BYTES, PROTOCOL_VERSION

MAGIC = b"PGFC"
ENVELOPE = struct.Struct("<4sHH16sQQQ")
"""magic, version, flags (0), session, number, acknowledged, digest of all else."""

_DIGEST_OFFSET = ENVELOPE.size - DIGEST_BYTES
_UNNUMBERED = 0
REPEATED = 32
"""Messages repeated at a time: some are large, and a peer that is slow has lost nothing."""


def session_of(envelope: bytes | memoryview) -> bytes:
    """The session that an envelope belongs to; checks all but the message itself.

    FrameDamaged for a wrong digest, RemoteProtocolError for all else.
    """
    return _open(envelope)[0]


def message_in(envelope: bytes | memoryview) -> AnyMessage:
    """The message in an envelope, whatever its session and its number; errors as `session_of`."""
    return decode_message(_open(envelope)[-1])


class Channel:
    """One end of the numbered conversation of one session.

    Numbers start at 1. `Alive` travels unnumbered: it is never repeated and carries
    the acknowledgement alone.
    """

    def __init__(self, session: bytes) -> None:
        self.session = session
        self._sent = 0
        self._heard = 0
        self._unacknowledged: deque[tuple[int, AnyMessage]] = deque()

    def outgoing(self, message: AnyMessage) -> bytes:
        """The envelope around `message`; kept until the other end acknowledges it."""
        if isinstance(message, Alive):
            return self._seal(_UNNUMBERED, message)
        self._sent += 1
        self._unacknowledged.append((self._sent, message))
        return self._seal(self._sent, message)

    def incoming(self, envelope: bytes | memoryview) -> AnyMessage | None:
        """The message in `envelope`; None when it was heard before, or others before it are
        missing, which the other end will repeat, and it with them.

        RemoteProtocolError for another session or an acknowledgement of what was never sent.
        """
        session, number, acknowledged, body = _open(envelope)
        if session != self.session:
            raise RemoteProtocolError("control message of another session")
        if acknowledged > self._sent:
            raise RemoteProtocolError(
                f"control message {acknowledged} acknowledged, {self._sent} sent"
            )
        while self._unacknowledged and self._unacknowledged[0][0] <= acknowledged:
            self._unacknowledged.popleft()
        message = decode_message(body)
        if (number == _UNNUMBERED) != isinstance(message, Alive):
            raise RemoteProtocolError(
                f"{type(message).__name__} with number {number}: only Alive is unnumbered"
            )
        if number == _UNNUMBERED:
            return message
        if number != self._heard + 1:
            return None
        self._heard = number
        return message

    @property
    def first_unacknowledged(self) -> int | None:
        """The number of the oldest message that the other end has not acknowledged."""
        return self._unacknowledged[0][0] if self._unacknowledged else None

    def unacknowledged(self) -> list[bytes]:
        """What to send again, in order: the oldest REPEATED of what is not acknowledged."""
        oldest = islice(self._unacknowledged, REPEATED)
        return [self._seal(number, message) for number, message in oldest]

    def _seal(self, number: int, message: AnyMessage) -> bytes:
        head = bytearray(
            ENVELOPE.pack(MAGIC, PROTOCOL_VERSION, 0, self.session, number, self._heard, 0)
        )
        body = encode_message(message)
        struct.pack_into("<Q", head, _DIGEST_OFFSET, digest_of(head, _DIGEST_OFFSET, body))
        return bytes(head) + body


def _open(envelope: bytes | memoryview) -> tuple[bytes, int, int, memoryview]:
    view = memoryview(envelope)
    if not ENVELOPE.size < len(view) <= MAX_CONTROL_BYTES:
        raise RemoteProtocolError(f"control message of {len(view)} bytes")
    magic, version, flags, session, number, acknowledged, digest = ENVELOPE.unpack_from(view)
    body = view[ENVELOPE.size :]
    if digest != digest_of(view, _DIGEST_OFFSET):
        raise FrameDamaged("damaged control message: wrong digest")
    if magic != MAGIC:
        raise RemoteProtocolError(f"not a pageferry control message: magic {magic!r}")
    if version != PROTOCOL_VERSION:
        raise RemoteProtocolError(
            f"wrong version {version} of a control message, this end speaks {PROTOCOL_VERSION}"
        )
    if flags:
        raise RemoteProtocolError(f"unknown flags {flags:#x} of a control message")
    return session, number, acknowledged, body
