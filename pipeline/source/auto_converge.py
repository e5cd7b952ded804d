"""By how much a guest is slowed down that writes faster than its pages travel. Pure: time is an
argument.

As QEMU's auto-converge since 2.5: over periods between two scans, of a second at least, what was
dirtied is held against half of what was sent, both in bytes of guest memory: bytes on the wire
would tell of compression. In the second period that has more, `FIRST` percent of the guest's
processor time are taken, in each further one `STEP` more, up to `MOST`.
"""

from dataclasses import dataclass

PERIOD_NS = 1_000_000_000
FIRST, STEP, MOST = 20, 10, 99
MIB = 1 << 20


@dataclass(frozen=True)
class Moved:
    """Bytes of guest memory until now: dirtied, as scans found them, and sent."""

    dirtied: int = 0
    sent: int = 0


class AutoConverge:
    """Of one migration, whose rounds began at `began_ns`; `percent` is taken now, `why` is what
    that was decided by."""

    def __init__(self, began_ns: int, moved: Moved = Moved()) -> None:
        self.percent = 0
        self.why = ""
        self._began_ns, self._before = began_ns, moved
        self._periods = 0

    def hurry(self, now_ns: int, moved: Moved) -> None:
        """A period begins anew, after which the guest is slowed down already."""
        self._began_ns, self._before = now_ns, moved
        self._periods = max(self._periods, 1)

    def look(self, now_ns: int, moved: Moved) -> bool:
        """Behind a scan: whether a period has ended. `percent` is more then, and `why` is said, or
        as it was, and `why` is empty."""
        if now_ns - self._began_ns < PERIOD_NS:
            return False
        dirtied, sent = moved.dirtied - self._before.dirtied, moved.sent - self._before.sent
        seconds = (now_ns - self._began_ns) / 1e9
        self._began_ns, self._before, self.why = now_ns, moved, ""
        if dirtied > sent / 2:
            self._step(f"{dirtied / MIB:.0f} MiB dirtied, {sent / MIB:.0f} sent in {seconds:.1f} s")
        return True

    def _step(self, why: str) -> None:
        self._periods += 1
        if self._periods >= 2 and self.percent < MOST:
            self.percent = min(self.percent + STEP, MOST) if self.percent else FIRST
            self.why = f"{self.percent} %: {why}"
