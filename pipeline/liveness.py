"""When to send a heartbeat, when to repeat what was said, and when the other end counts as gone.

Pure: time is an argument.
"""

HEARTBEAT_NS = 1_000_000_000
SILENCE_SECONDS = 5.0
REPEAT_NS = 2_000_000_000
"""Twice what an acknowledgement takes at most: a peer with nothing to say sends a heartbeat."""


STALL_NS = 1_000_000_000
"""Ends listen every 50 ms; one that did not for so long was stopped, or its machine slept."""


class Stalls:
    """Notices when this end stood still, and heard nobody for that reason; in monotonic ns."""

    def __init__(self, now_ns: int) -> None:
        self._last_ns = now_ns

    def stood_still_ns(self, now_ns: int) -> int:
        """How long it stood still since the last call; 0 where it went on."""
        gap_ns, self._last_ns = now_ns - self._last_ns, now_ns
        return gap_ns if gap_ns > STALL_NS else 0


class Liveness:
    """The last time each end was heard by the other, in monotonic ns."""

    def __init__(self, now_ns: int) -> None:
        self._spoke_ns = now_ns
        self.heard_ns = now_ns
        self._stalls = Stalls(now_ns)
        self._deaf_ns = 0

    def spoke(self, now_ns: int) -> None:
        """Something was sent."""
        self._spoke_ns = now_ns

    def heard(self, now_ns: int) -> None:
        """Something came in."""
        self.heard_ns, self._deaf_ns = now_ns, 0

    def owes_heartbeat(self, now_ns: int) -> bool:
        """Whether the other end has heard nothing for a second."""
        return now_ns - self._spoke_ns >= HEARTBEAT_NS

    def is_lost(self, now_ns: int, patience_s: float = SILENCE_SECONDS) -> bool:
        """Whether the other end has said nothing for `patience_s`, while we listened.

        To be asked all the time.
        """
        self._deaf_ns += self._stalls.stood_still_ns(now_ns)
        return now_ns - self.heard_ns - self._deaf_ns >= patience_s * 1e9


class Repetition:
    """Since when the oldest message that is not acknowledged is that, in monotonic ns."""

    def __init__(self, now_ns: int) -> None:
        self._oldest: int | None = None
        self._since_ns = now_ns

    def is_due(self, now_ns: int, oldest: int | None) -> bool:
        """Whether to repeat from message number `oldest` on, None where all is acknowledged.

        Every REPEAT_NS, as long as there is no progress.
        """
        if oldest is None or oldest != self._oldest:
            self._oldest, self._since_ns = oldest, now_ns
            return False
        if now_ns - self._since_ns < REPEAT_NS:
            return False
        self._since_ns = now_ns
        return True
