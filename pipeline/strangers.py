"""What a destination says to who is not its source. Pure: time is an argument."""

from contextlib import suppress

from protocol.channel import Channel, message_in, session_of
from protocol.control import Failed, Hello
from protocol.errors import RemoteProtocolError
from protocol.limits import REASON_CHARS

BUSY = "it is busy with another migration"
DECLINE_NS = 100_000_000
"""Between two that are told so: however many knock, they cost next to nothing."""


class Strangers:
    """Who came while another one is the source; when one of them was told so last."""

    def __init__(self) -> None:
        self._declined_ns = -DECLINE_NS

    def maybe_answer(self, envelope: bytes, session: bytes, now_ns: int) -> bytes | None:
        """For who says hello in another session than `session`; nothing else of it is heard."""
        if now_ns - self._declined_ns < DECLINE_NS:
            return None
        with suppress(RemoteProtocolError):
            if session_of(envelope) != session and isinstance(message_in(envelope), Hello):
                self._declined_ns = now_ns
                return refusal(envelope, BUSY)
        return None


def refusal(envelope: bytes, reason: str) -> bytes:
    """The answer to `envelope`, in one that who sent it may be able to read."""
    answer = Channel(envelope[8:24].ljust(16, b"\0"))
    return answer.outgoing(Failed(reason=reason[:REASON_CHARS], cancelled=False))
