"""When to send a heartbeat, and when the other end counts as gone. Pure: time is an argument."""

HEARTBEAT_NS = 1_000_000_000
SILENCE_SECONDS = 5.0


class Liveness:
    """The last time each end was heard by the other, in monotonic ns."""

    def __init__(self, now_ns: int) -> None:
        self._spoke_ns = now_ns
        self._heard_ns = now_ns

    def spoke(self, now_ns: int) -> None:
        """Something was sent."""
        self._spoke_ns = now_ns

    def heard(self, now_ns: int) -> None:
        """Something came in."""
        self._heard_ns = now_ns

    def owes_heartbeat(self, now_ns: int) -> bool:
        """Whether the other end has heard nothing for a second."""
        return now_ns - self._spoke_ns >= HEARTBEAT_NS

    def is_lost(self, now_ns: int, patience_s: float = SILENCE_SECONDS) -> bool:
        """Whether the other end has said nothing for `patience_s`."""
        return now_ns - self._heard_ns >= patience_s * 1e9
