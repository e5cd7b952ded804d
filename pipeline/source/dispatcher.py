"""Hands batches and scans to the compress workers, within their credit and the window.

A batch is this end's responsibility from the moment it gets its seq until the
destination says that it is applied; what is in between is in `_out`.
"""

from collections import deque
from collections.abc import Iterable, Iterator

import numpy as np

from pipeline.source.dirty import Planned
from protocol.errors import RemoteProtocolError
from workers.messages import ScanJob, Scanned, SendJob, Sent
from workers.pages import Pages
from workers.pool import Pool

CREDIT = 3
"""Jobs that a worker may hold, so that it has the next one at hand while one is asked for."""

SCAN_PAGES = 2048
"""Pages in a scan job: 8 MiB take about 2 ms, long against the message, short in a round."""


class Dispatcher:
    """The jobs that wait, that are at the workers, and that are on their way."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._lanes = 0
        self._window = 0
        self._credit: deque[int] = deque()
        self._planned: deque[Iterator[Planned]] = deque()
        self._next_batch: Planned | None = None
        self._out: dict[int, Planned] = {}
        self._scans: deque[ScanJob] = deque()
        self._scanning: dict[int, ScanJob] = {}
        self._jobs = 0
        self._unsent: dict[int, int] = {}
        self.round_no = 0
        self.settled = False
        self.last_seq = 0
        self.applied = 0
        self.pages_pending = 0
        self.pages_out = 0
        """Sent and not applied; below 0 while a word of a worker comes after the peer's."""

    def open(self, lanes: int, window: int) -> None:
        """From now on: `lanes` decompress workers to send to, `window` frames out at most."""
        self._lanes, self._window = lanes, window
        self._credit.extend(worker for _ in range(CREDIT) for worker in self._pool.workers)

    def start_round(self) -> None:
        """What is planned from now on belongs to the next round."""
        self.round_no += 1

    def plan(self, batches: Iterable[Planned], pages: int) -> None:
        """Give out `batches`, of `pages` in all, behind those planned before; cut lazily."""
        self.pages_pending += pages
        self._planned.append(iter(batches))
        if self._next_batch is None:
            self._take_next()

    def scan(self, block_pages: tuple[int, ...], every: int = 1) -> None:
        """Compare all pages of all blocks with the hash table; or every so many-th range."""
        ranges = [
            (block, first, min(SCAN_PAGES, pages - first))
            for block, pages in enumerate(block_pages)
            for first in range(0, pages, SCAN_PAGES)
        ]
        for block, first, count in ranges[::every]:
            self._jobs += 1
            self._scans.append(ScanJob(self._jobs, block, first, count))

    def feed(self) -> None:
        """Give out what credit and window allow; batches before scans."""
        while self._credit:
            if self._next_batch is not None and self.last_seq - self.applied < self._window:
                self._give_batch(self._credit.popleft(), self._next_batch)
                self._take_next()
            elif self._scans:
                job = self._scans.popleft()
                self._scanning[job.job] = job
                self._pool.send(self._credit.popleft(), job)
            else:
                return

    def _take_next(self) -> None:
        self._next_batch = None
        while self._planned and self._next_batch is None:
            self._next_batch = next(self._planned[0], None)
            if self._next_batch is None:
                self._planned.popleft()

    def _give_batch(self, worker: int, batch: Planned) -> None:
        block, pages = batch
        self.last_seq += 1
        self._out[self.last_seq] = batch
        self._unsent[self.last_seq] = len(pages)
        job = SendJob(
            seq=self.last_seq,
            attempt=0,
            round_no=self.round_no,
            block=block,
            lane=self.last_seq % self._lanes,
            settled=self.settled,
            pages=pages.tobytes(),
        )
        self._pool.send(worker, job)

    def heard_sent(self, worker: int, message: Sent) -> int:
        """A worker's frame is out: it has credit again. The pages of the batch."""
        self._credit.append(worker)
        pages = self._unsent.pop(message.seq)
        self.pages_out += pages
        return pages

    def heard_scanned(self, worker: int, message: Scanned) -> tuple[ScanJob, Pages]:
        """A scan is done: the job and the pages that differ."""
        self._credit.append(worker)
        return self._scanning.pop(message.job), np.frombuffer(message.pages, np.uint32)

    def heard_applied(self, seq: int) -> int:
        """Everything up to `seq` is in the destination's memory; the pages that this adds.

        RemoteProtocolError for what was never given out or goes backwards.
        """
        if not self.applied <= seq <= self.last_seq:
            raise RemoteProtocolError(
                f"applied {seq}, after {self.applied}; {self.last_seq} is the last given out"
            )
        pages = sum(len(self._out.pop(done)[1]) for done in range(self.applied + 1, seq + 1))
        self.applied = seq
        self.pages_pending -= pages
        self.pages_out -= pages
        return pages

    @property
    def all_given(self) -> bool:
        """Whether no batch waits to be given out."""
        return self._next_batch is None

    @property
    def all_scanned(self) -> bool:
        """Whether no scan waits or runs."""
        return not self._scans and not self._scanning

    @property
    def all_sent(self) -> bool:
        """Whether every batch has left its worker, so that the hash table is final."""
        return self.all_given and not self._unsent

    @property
    def all_applied(self) -> bool:
        """Whether the destination holds everything: the fence between two rounds."""
        return self.all_given and self.applied == self.last_seq
