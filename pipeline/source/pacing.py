"""How long rounds go on: looks at what a migration does, and hands it to who decides.

`Rounds` decides whether what is left fits into the downtime, `Convergence` what is done where it
never will. Here are the figures for both, of one migration that is under way.
"""

import os
from time import monotonic_ns

import structlog

from pipeline.config.model import Config
from pipeline.source.auto_converge import AutoConverge, Moved
from pipeline.source.convergence import Convergence, Left, Policy
from pipeline.source.engine import SourceEngine
from pipeline.source.rounds import FixedParts, Rounds, Verdict
from protocol.errors import NotConverging
from protocol.limits import PAGE_BYTES

DEVICES_MS = 25.0
"""Save, transfer, load and start, on two busy cores: 12 to 25 ms of a synthetic guest, 30 of a
QEMU."""


class Pacing:
    """Of the rounds of one migration; owned by the coordinator's thread."""

    def __init__(self, config: Config, engine: SourceEngine) -> None:
        self._engine = engine
        self._policy = _policy(config, engine)
        self.rounds = Rounds(config.parameters.downtime_limit)
        self._is_auto_converging = config.capabilities.auto_converge
        self.begin()

    def begin(self) -> None:
        """The first round begins."""
        now_ns = monotonic_ns()
        self.convergence = Convergence(self._policy, now_ns)
        self.auto_converge = AutoConverge(now_ns)

    def check(self) -> None:
        """NotConverging where it does not come to an end, and that is what shall become of it."""
        if not self._policy.watches or not self._engine.statistics.rounds:
            return  # to count what is dirty takes 12 us a GiB, four times a second
        why = self.convergence.why_hopeless(monotonic_ns(), self._left())
        if why is None:
            return
        if self.convergence.throttles:
            structlog.get_logger().warning(f"{why}: slowing the guest down")
            self._is_auto_converging = True
            self.auto_converge.hurry(monotonic_ns(), self._moved())
        elif self.convergence.accepts_downtime:
            structlog.get_logger().warning(f"{why}: switching over, whatever the downtime")
        else:
            raise NotConverging(why)

    def maybe_throttle(self) -> int | None:
        """How many percent of its processor time the guest loses from now on, told once a period
        also where it is as before; None: nothing new."""
        if not self._is_auto_converging or not self.auto_converge.look(
            monotonic_ns(), self._moved()
        ):
            return None
        return self.auto_converge.percent or None

    def throttled(self) -> None:
        """Keep what it was decided by, now that it is done."""
        if self.auto_converge.why:
            self.convergence.decide(monotonic_ns(), "throttle", self.auto_converge.why)

    def _moved(self) -> Moved:
        statistics = self._engine.statistics
        sent_bytes = statistics.all_applied_pages * PAGE_BYTES
        return Moved(statistics.dirtied_pages * PAGE_BYTES, sent_bytes)

    def _left(self) -> Left:
        """What is left, in this round and as far as is known after it."""
        engine, current = self._engine, self._engine.statistics.rounds[-1]
        return Left(
            round_no=current.round_no,
            of_round=current.pages * PAGE_BYTES,
            began_ns=current.began_ns,
            in_round=engine.dispatcher.pages_pending * PAGE_BYTES,
            dirty=engine.dirty.pages * PAGE_BYTES,
            dirty_rate=engine.statistics.dirty_pages_rate,
        )

    def verdict(self) -> Verdict:
        """What to do after this round; what was written behind a hash scan's back counts, too."""
        engine = self._engine
        self._step_downtime()
        engine.scan()
        if engine.sent.hashes is not None and engine.tracking.scans:
            engine.sample_hashing()
        fixed = self._fixed_parts()
        if engine.dispatcher.round_no == 1:
            self._warn(fixed)
        return self._decide(fixed)

    def still_fits(self, fence_ns: int) -> bool:
        """Whether the guest may be stopped, now that nothing is on its way any more: that would be
        downtime, too. What was written meanwhile is looked for, where that is the shorter thing."""
        fixed = self._fixed_parts()
        if fence_ns > fixed.scan_ms * 1e6:
            self._engine.scan()
        return self._decide(fixed) is Verdict.SWITCH_OVER

    def _step_downtime(self) -> None:
        limit_ms = self.convergence.downtime_limit_ms(monotonic_ns(), self.rounds.most_ms)
        if limit_ms != self.rounds.downtime_limit_ms:
            structlog.get_logger().info("downtime-limit", ms=round(limit_ms))
        self.rounds.downtime_limit_ms = limit_ms

    def _decide(self, fixed: FixedParts) -> Verdict:
        if self.convergence.accepts_downtime:
            return Verdict.SWITCH_OVER
        unseen = self._engine.statistics.dirty_pages_rate * fixed.scan_ms / 2e3
        return self.rounds.decide(
            self._engine.pending_bytes + int(unseen) * PAGE_BYTES,
            self._engine.pump.windows.bandwidth,
            fixed,
        )

    def _warn(self, fixed: FixedParts) -> None:
        limit_ms = self.rounds.most_ms
        if fixed.total_ms >= limit_ms:
            structlog.get_logger().warning(
                "the downtime-limit is too low for this guest: scan, verification and device"
                f" state alone take {fixed.total_ms:.0f} ms of {limit_ms:.0f} ms"
            )

    def _fixed_parts(self) -> FixedParts:
        """What hashing takes, on the cores that the workers get, and what follows it.

        The destination is taken to have as many cores as there are here.
        """
        engine = self._engine
        if engine.sent.hashes is None:
            return FixedParts(devices_ms=DEVICES_MS)
        statistics, cores = engine.statistics, len(os.sched_getaffinity(0))
        page_ms = statistics.hash_ns_a_page / 1e6
        hashers = min(cores, len(engine.recovery.staff.working))
        pass_ms = page_ms * statistics.total_pages / hashers
        compare_ms = page_ms * statistics.uncompared_pages / min(cores, statistics.lanes)
        if engine.tracking.scans:
            return FixedParts(0.0, pass_ms + compare_ms, DEVICES_MS)
        return FixedParts(pass_ms, compare_ms, DEVICES_MS)


def _policy(config: Config, engine: SourceEngine) -> Policy:
    wanted = config.convergence
    return Policy(
        memory_bytes=engine.statistics.memory_pages * PAGE_BYTES,
        completion_s=wanted.completion_timeout,
        progress_s=wanted.progress_timeout,
        margin=wanted.progress_margin,
        remedy=wanted.then,
        start_ms=wanted.downtime_start,
        steps=wanted.downtime_steps,
        delay_s=wanted.downtime_delay,
    )
