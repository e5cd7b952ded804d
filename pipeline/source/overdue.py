"""Whether frames that left this end get applied at the other. Pure: time is an argument."""

GRACE_NS = 10_000_000_000
"""Longer than any pause of a destination that lives; its heartbeats come all the while."""


class Overdue:
    """The last progress of what is out, in monotonic ns."""

    def __init__(self, now_ns: int) -> None:
        self._applied = 0
        self._progress_ns = now_ns

    def is_overdue(self, now_ns: int, applied: int, out_bytes: int, bandwidth: float) -> bool:
        """Whether `out_bytes` of guest memory, sent and not applied, should have arrived.

        `applied` is the last seq that is, `bandwidth` guest bytes/ms, 0 where it is not known.
        """
        if applied != self._applied or out_bytes <= 0:
            self._applied, self._progress_ns = applied, now_ns
        expected_ns = out_bytes / bandwidth * 1e6 if bandwidth else 0.0
        return now_ns - self._progress_ns > GRACE_NS + expected_ns
