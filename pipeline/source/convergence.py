"""Does a migration come to an end by itself, and what if not? Pure: time is an argument.

What is left falls to nothing in every round, and rises again with the next scan. Held against the
least so far is therefore what is left of the round *and* what was dirtied since it began, as far as
the dirty rate tells; before the first scan that is not known, and all that is sent is progress.
"""

from dataclasses import dataclass
from math import inf
from typing import Literal

from pipeline.result import Decision
from protocol.limits import PAGE_BYTES

GIB = 1 << 30
FIRST_ROUND_MARGIN = 0.001
"""A TiB over 10 MiB/s gets on by so much in 105 s; nobody dirties what was not sent yet."""
Remedy = Literal["cancel", "switch-over", "throttle"]


@dataclass(frozen=True)
class Left:
    """Round `round_no` of `of_round` bytes, since `began_ns`: `in_round` of them are left, and as
    far as is known `dirty` bytes for the next one. `dirty_rate` is pages a second."""

    round_no: int
    of_round: int
    began_ns: int
    in_round: int
    dirty: int
    dirty_rate: float

    def total(self, now_ns: int) -> float:
        """All that is left now. More than in the round before is hardly dirtied in this one."""
        dirtied = self.dirty_rate * PAGE_BYTES * (now_ns - self.began_ns) / 1e9
        return self.in_round + max(self.dirty, min(dirtied, self.of_round))


@dataclass(frozen=True)
class Policy:
    """Of a guest of `memory_bytes`. Times in seconds, 0 is none; `completion_s` and `delay_s` for
    each GiB of it. It is progress where what is left is `margin` (a share) below the least so far.
    The downtime limit goes from `start_ms` to what is set in `steps`, one each `delay_s`."""

    memory_bytes: int
    completion_s: float = 0.0
    progress_s: float = 0.0
    margin: float = 0.01
    remedy: Remedy = "cancel"
    start_ms: float = 0.0
    steps: int = 0
    delay_s: float = 0.0

    @property
    def watches(self) -> bool:
        """Whether there is a time within which something has to be seen."""
        return bool(self.completion_s or self.progress_s)

    @property
    def gibs(self) -> float:
        """GiB of memory; a small guest counts as one."""
        return max(1.0, self.memory_bytes / GIB)


class Convergence:
    """Watches one migration, whose rounds began at `began_ns`; `decisions` is what it decided."""

    def __init__(self, policy: Policy, began_ns: int) -> None:
        self._policy = policy
        self._began_ns = began_ns
        self._round_no = 0
        self._smallest = inf
        self._least = inf
        self._least_ns = began_ns
        self._step = 0
        self.decisions: list[Decision] = []
        self.accepts_downtime = False
        """Switch over as soon as a round has ended, however long that takes."""
        self.throttles = False
        """Slow the guest down."""

    def why_hopeless(self, now_ns: int, left: Left) -> str | None:
        """Why it does not come to an end, when that is decided, once; `decisions` says what is
        done."""
        total = left.total(now_ns)
        self._note(now_ns, left, total)
        why = self._why_late(now_ns, total) or self._why_stalled(now_ns, total)
        if why is None or self.accepts_downtime or self.throttles:
            return None
        self.decide(now_ns, self._policy.remedy, why)
        self.accepts_downtime = self._policy.remedy == "switch-over"
        self.throttles = self._policy.remedy == "throttle"
        return why

    def _note(self, now_ns: int, left: Left, total: float) -> None:
        """Progress is less than ever, or a round that is smaller than any before: what was dirtied
        meanwhile is known only then."""
        margin = self._policy.margin if left.round_no > 1 else FIRST_ROUND_MARGIN
        shrank = left.round_no > self._round_no and left.of_round < self._smallest * (1 - margin)
        self._round_no, self._smallest = left.round_no, min(left.of_round, self._smallest)
        if shrank or total < self._least * (1 - margin):
            self._least, self._least_ns = total, now_ns

    def _why_late(self, now_ns: int, total: float) -> str | None:
        policy = self._policy
        allowed_s = policy.completion_s * policy.gibs
        if not allowed_s or now_ns - self._began_ns <= allowed_s * 1e9:
            return None
        return (
            f"not converging: not done in {allowed_s:g} s ({policy.completion_s:g} s for each of"
            f" {policy.gibs:.1f} GiB), {total / 2**20:.0f} MiB left"
        )

    def _why_stalled(self, now_ns: int, total: float) -> str | None:
        window_s = self._policy.progress_s
        if not window_s or now_ns - self._least_ns <= window_s * 1e9:
            return None
        return (
            f"not converging: no progress in {window_s:g} s, {total / 2**20:.0f} MiB left,"
            f" {self._least / 2**20:.0f} MiB at the least"
        )

    def downtime_limit_ms(self, now_ns: int, most_ms: float) -> float:
        """What a switch-over may take now, `most_ms` in the end."""
        policy = self._policy
        if not policy.steps or policy.start_ms >= most_ms:
            return most_ms
        passed = (now_ns - self._began_ns) / (policy.delay_s * policy.gibs * 1e9)
        step = min(policy.steps, int(passed))
        limit_ms = policy.start_ms + (most_ms - policy.start_ms) * step / policy.steps
        if step > self._step:
            self._step = step
            why = f"{limit_ms:.0f} ms, step {step} of {policy.steps} to {most_ms:.0f} ms"
            self.decide(now_ns, "downtime-limit", why)
        return limit_ms

    def decide(self, now_ns: int, what: str, why: str) -> None:
        """Keep that `what` was decided."""
        self.decisions.append(Decision((now_ns - self._began_ns) // 1_000_000, what, why))
