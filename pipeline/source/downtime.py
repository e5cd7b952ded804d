"""The downtime of one migration and its parts, in ms."""

from time import monotonic_ns


class DowntimeClock:
    """Runs from the moment the guest is told to stop to the one it was started at the other end."""

    def __init__(self) -> None:
        self._began_ns = 0
        self._lap_ns = 0
        self.parts: dict[str, float] = {}
        self.total_ms: float | None = None

    def start(self) -> None:
        """The guest is being stopped."""
        self._began_ns = self._lap_ns = monotonic_ns()

    def lap(self, part: str, *, other: str = "", other_ms: float = 0.0) -> None:
        """The time since the last lap belongs to `part`, but for what `other` took of it."""
        now_ns = monotonic_ns()
        elapsed_ms = (now_ns - self._lap_ns) / 1e6
        self._lap_ns = now_ns
        self.parts[part] = self.parts.get(part, 0.0) + elapsed_ms - other_ms
        if other:
            self.parts[other] = other_ms

    def stop(self, part: str, since_ms: float) -> None:
        """The guest has run at the destination for `since_ms`; the time before is the last part's.

        What the other end says is not more than the time since the last lap.
        """
        since_ms = min(since_ms, (monotonic_ns() - self._lap_ns) / 1e6)
        self.lap(part, other_ms=since_ms)
        self.total_ms = (self._lap_ns - self._began_ns) / 1e6 - since_ms
