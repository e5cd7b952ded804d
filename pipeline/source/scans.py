"""The scans of memory that wait, and those that compress workers have in hand."""

from collections import defaultdict, deque
from collections.abc import Collection

from workers.messages import ScanJob

SCAN_PAGES = 2048
"""Pages in a scan job: 8 MiB take about 2 ms, long against the message, short in a round."""


_NOBODY = -1


class Scans:
    """Each scan is with one worker or waits; what a lost worker had in hand waits again.

    A range goes to the worker that has scanned it before, which has its pages mapped, as long as
    that one has time: 0.16 s of processor time a GiB instead of 0.22.
    """

    def __init__(self) -> None:
        self._waiting: defaultdict[int, deque[ScanJob]] = defaultdict(deque)
        """By the worker that has scanned it last."""
        self._last: dict[tuple[int, int], int] = {}
        self._in_hand: dict[int, tuple[int, ScanJob]] = {}
        """Number of a job → the worker that has it, and the job."""
        self._jobs = 0

    def plan(
        self, block_pages: tuple[int, ...], every: int = 1, only: Collection[int] | None = None
    ) -> None:
        """Compare all pages of all blocks, or of `only` those, with the hash table; or every so
        many-th range."""
        ranges = [
            (block, first, min(SCAN_PAGES, pages - first))
            for block, pages in enumerate(block_pages)
            if only is None or block in only
            for first in range(0, pages, SCAN_PAGES)
        ]
        for block, first, count in ranges[::every]:
            self._jobs += 1
            self._wait(ScanJob(self._jobs, block, first, count))

    def _wait(self, job: ScanJob) -> None:
        self._waiting[self._last.get((job.block, job.first), _NOBODY)].append(job)

    def give(self, worker: int) -> ScanJob:
        """A scan that waits, now in the hand of `worker`: one of its own, or one of nobody's, or of
        the worker that has most to do."""
        waiting = self._waiting
        queue = waiting[worker] or waiting[_NOBODY] or max(waiting.values(), key=len)
        job = queue.popleft()
        self._last[job.block, job.first] = worker
        self._in_hand[job.job] = (worker, job)
        return job

    def heard(self, number: int) -> ScanJob:
        """The job of this number is done."""
        return self._in_hand.pop(number)[1]

    def held_by(self, worker: int) -> list[ScanJob]:
        """What a worker has in hand, in the order in which it was given."""
        return [job for at, job in self._in_hand.values() if at == worker]

    def lose_worker(self, worker: int) -> None:
        """A worker is dead."""
        for job in self.held_by(worker):
            del self._in_hand[job.job]
            self._wait(job)

    @property
    def are_waiting(self) -> bool:
        """Whether there is one to be given out."""
        return any(self._waiting.values())

    @property
    def all_done(self) -> bool:
        """Whether none waits or runs."""
        return not self.are_waiting and not self._in_hand
