"""Whether frames that left this end should have been applied at the other. Pure: time is an
argument."""

from collections import deque

GRACE_NS = 1_000_000_000
AGAIN_NS = 5_000_000_000
"""Once a connection was opened anew in vain: longer than it takes until a decompress worker that
hangs is noticed and replaced (4 s), which loses the frame twice more, of three times in all."""
FIRST_NS = 10_000_000_000
SLOWEST = 65.536
"""Guest bytes/ms, 64 KiB/s: what a link is trusted to reach while nobody knows it. A bandwidth
below it was measured while all waited for a lost frame; the gaps tell of a link that is slower."""
GAPS = 16


class Overdue:
    """When something was applied last, and the gaps before, in monotonic ns."""

    def __init__(self, now_ns: int) -> None:
        self._applied = 0
        self._since_ns = now_ns
        self._in_vain = False
        self._gaps_ns: deque[int] = deque(maxlen=GAPS)

    def is_overdue(self, now_ns: int, applied: int, out_bytes: int, bandwidth: float) -> bool:
        """Whether `out_bytes` of guest memory, sent and not applied, should have arrived.

        `applied` is the last seq that is, `bandwidth` guest bytes/ms, 0 where it is not known.
        After a yes the grace begins anew, and is longer until something is applied.
        """
        waited_ns = now_ns - self._since_ns
        overdue = False
        if applied != self._applied:
            self._applied, self._in_vain = applied, False
            self._gaps_ns.append(waited_ns)
        elif out_bytes > 0:
            overdue = waited_ns > self._patience_ns(out_bytes, bandwidth)
            if not overdue:
                return False
            self._in_vain = True
        self._since_ns = now_ns
        return overdue

    def _patience_ns(self, out_bytes: int, bandwidth: float) -> float:
        """A second and what is out by the bandwidth; more where progress comes by fits and
        starts, as on a thin link, whose bandwidth is overestimated from full windows."""
        if not bandwidth or not self._gaps_ns:
            return FIRST_NS + out_bytes / SLOWEST * 1e6
        grace_ns = AGAIN_NS if self._in_vain else GRACE_NS
        return grace_ns + out_bytes / max(bandwidth, SLOWEST) * 1e6 + 3 * max(self._gaps_ns)
