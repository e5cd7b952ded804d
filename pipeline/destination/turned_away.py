"""What is said of those who were not let in: each once, and again when they go on.

Pure: time is an argument.
"""

from workers.messages import TurnedAway

AGAIN_NS = 10_000_000_000
MOST = 1000
"""Addresses that are remembered; whoever has more of them gets a line more."""


class TurnedAwayWords:
    """Who was told of, and when, in monotonic ns."""

    def __init__(self) -> None:
        self._told_ns: dict[tuple[str, str], int] = {}

    def maybe_words(self, who: TurnedAway, now_ns: int) -> str | None:
        """The line to log; None where the same host was told of for the same reason lately."""
        host = who.address.rpartition(":")[0] or who.address
        told_ns = self._told_ns.get((host, who.reason))
        if told_ns is not None and now_ns - told_ns < AGAIN_NS:
            return None
        if len(self._told_ns) >= MOST:
            self._told_ns.clear()
        self._told_ns[host, who.reason] = now_ns
        return f"a connection from {who.address} was turned away: {who.reason}"
