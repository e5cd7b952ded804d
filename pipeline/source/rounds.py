"""Send on, switch over, or give up? Pure: figures in, a verdict out; time is an argument.

The formulas are those of QEMU's migration thread, corrected: what is compared with
the bytes pending are guest bytes *applied*, and what must happen in the downtime
besides sending (scan, verification, device state) is taken off the limit first.
"""

from dataclasses import dataclass
from enum import Enum, auto

from protocol.errors import NotConverging

WINDOW_NS = 100_000_000
SMOOTHING = 0.3
"""Weight of the newest window in the bandwidth."""
HOPELESS_ROUNDS = 10


class Verdict(Enum):
    """What to do after a round."""

    SEND = auto()
    SWITCH_OVER = auto()


class Windows:
    """Bandwidth over windows of at least 100 ms, smoothed; guest bytes/ms, wire Mbit/s."""

    def __init__(self, now_ns: int) -> None:
        self._opened_ns = now_ns
        self._applied_bytes = 0
        self._wire_bytes = 0
        self.bandwidth = 0.0
        self.mbps = -1.0

    def add(self, *, applied_bytes: int = 0, wire_bytes: int = 0) -> None:
        """Count what happened in the window that is open."""
        self._applied_bytes += applied_bytes
        self._wire_bytes += wire_bytes

    def tick(self, now_ns: int, *, waiting: bool) -> None:
        """Close the window if it is old enough.

        One in which nothing was applied says nothing; but while frames are out (`waiting`) it
        stays open: on a thin link the windows with progress alone would tell of a fast one.
        """
        elapsed_ns = now_ns - self._opened_ns
        if elapsed_ns < WINDOW_NS or (waiting and not self._applied_bytes):
            return
        self.mbps = self._wire_bytes * 8 / (elapsed_ns / 1e9) / 1e6
        if self._applied_bytes:
            newest = self._applied_bytes / (elapsed_ns / 1e6)
            weight = SMOOTHING if self.bandwidth else 1.0
            self.bandwidth += weight * (newest - self.bandwidth)
        self._opened_ns, self._applied_bytes, self._wire_bytes = now_ns, 0, 0


@dataclass(frozen=True)
class FixedParts:
    """What the downtime holds besides the last dirty pages, predicted, in ms."""

    scan_ms: float = 0.0
    verify_ms: float = 0.0
    devices_ms: float = 0.0

    @property
    def total_ms(self) -> float:
        """The sum of the parts."""
        return self.scan_ms + self.verify_ms + self.devices_ms


class Rounds:
    """The decision after each round; counts the rounds that could not end well."""

    def __init__(self, downtime_limit_ms: float) -> None:
        self.downtime_limit_ms = downtime_limit_ms
        self.most_ms = float(downtime_limit_ms)
        """What the limit may become in the end."""
        self.expected_downtime_ms = downtime_limit_ms
        self._hopeless = 0

    def max_size(self, bandwidth: float, fixed: FixedParts) -> float:
        """How many bytes the downtime has room for, at `bandwidth` bytes/ms."""
        return bandwidth * max(0.0, self.downtime_limit_ms - fixed.total_ms)

    def decide(self, pending_bytes: int, bandwidth: float, fixed: FixedParts) -> Verdict:
        """What to do with `pending_bytes` dirty or on their way.

        NotConverging after ten rounds whose fixed parts alone are over the limit.
        """
        if bandwidth:
            self.expected_downtime_ms = pending_bytes / bandwidth + fixed.total_ms
        if not pending_bytes or pending_bytes < self.max_size(bandwidth, fixed):
            return Verdict.SWITCH_OVER
        if bandwidth and fixed.total_ms >= self.most_ms:
            self._count_hopeless(fixed)
        return Verdict.SEND

    def _count_hopeless(self, fixed: FixedParts) -> None:
        self._hopeless += 1
        if self._hopeless >= HOPELESS_ROUNDS:
            pages_ms = self.expected_downtime_ms - fixed.total_ms
            raise NotConverging(
                f"not converging: scan {fixed.scan_ms:.0f} ms, verification"
                f" {fixed.verify_ms:.0f} ms and device state {fixed.devices_ms:.0f} ms alone"
                f" exceed the downtime-limit of {self.most_ms:.0f} ms;"
                f" {int(self.expected_downtime_ms) + 1} ms would do, with {pages_ms:.0f} ms for"
                " the last pages"
            )
