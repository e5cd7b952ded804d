"""Which pages of the destination's memory still have to be compared with what was sent.

A page is taken off the list before it is read back, and put on it again when it is
written: the rule of dirty tracking, once more. Of a page that was written meanwhile a
job says nothing: what counts is the newest job that was made of it.
"""

from collections import deque

import numpy as np
from numpy.typing import NDArray

from pipeline.destination.landing import Landing
from workers.messages import Checked, ReadBack
from workers.pages import ZERO_HASH, Hashes, Pages

PLAN_PAGES = 4096
"""Pages that land between two looks at what can be read back."""

PIECE_PAGES = 512
"""Pages in a job: 2 MiB, some 0.5 ms of a worker between two frames."""

_NO_JOB = 0
"""Stands for a page that was written and is in no job yet, or was never written."""


class ReadBackList:
    """The comparison of all memory, piece by piece; owned by the receiver."""

    def __init__(self, landings: list[Landing], expected: list[Hashes]) -> None:
        self._landings = landings
        self._expected = expected
        self._newest_job: list[NDArray[np.uint32]] = [
            np.zeros(len(table), np.uint32) for table in expected
        ]
        self._landed: list[list[Pages]] = [[] for _ in expected]
        self._jobs: deque[ReadBack] = deque()
        self._asked: dict[int, ReadBack] = {}
        self._unplanned = 0
        self._planned = 0
        self._number = 0
        self._wrong: list[NDArray[np.bool_]] = [
            np.zeros(len(table), np.bool_) for table in expected
        ]

    def wrote(self, block: int, pages: Pages) -> None:
        """Pages were written: what was found out about them is void."""
        self._newest_job[block][pages] = _NO_JOB
        self._wrong[block][pages] = False
        self._landed[block].append(pages)
        self._unplanned += len(pages)
        if self._unplanned >= PLAN_PAGES:
            self._plan_landed()

    def plan(self) -> None:
        """Make jobs of all memory that was not compared since it was written."""
        self._plan_landed()
        for block, landing in enumerate(self._landings):
            self._plan(block, landing.written)

    def _plan_landed(self) -> None:
        self._unplanned = 0
        for block, landed in enumerate(self._landed):
            if landed:
                pages = np.unique(np.concatenate(landed))
                self._plan(block, pages[self._landings[block].is_written(pages)])
                landed.clear()

    def _plan(self, block: int, written: Pages) -> None:
        newest_job = self._newest_job[block]
        pages = written[newest_job[written] == _NO_JOB]
        self._planned += len(pages)
        for start in range(0, len(pages), PIECE_PAGES):
            self._number += 1
            piece = pages[start : start + PIECE_PAGES]
            newest_job[piece] = self._number
            self._jobs.append(ReadBack(self._number, block, piece.tobytes()))

    def maybe_next(self) -> ReadBack | None:
        """The next job for a worker, if there is one."""
        if not self._jobs:
            return None
        job = self._jobs.popleft()
        self._asked[job.job] = job
        return job

    def give_back(self, job: int) -> None:
        """The worker that had the job is gone."""
        self._jobs.appendleft(self._asked.pop(job))

    def heard(self, message: Checked) -> None:
        """Take the answer of a job."""
        job = self._asked.pop(message.job)
        self._planned -= len(job.pages) // 4
        wrong = np.frombuffer(message.pages, np.uint32)
        self._wrong[job.block][wrong[self._newest_job[job.block][wrong] == job.job]] = True

    @property
    def uncompared(self) -> int:
        """How many pages are still to be compared."""
        return self._planned + self._unplanned

    @property
    def is_done(self) -> bool:
        """Whether no job waits or runs."""
        return not self._jobs and not self._asked

    def mismatches(self) -> list[tuple[int, Pages]]:
        """The pages that differ, by block: read back wrong, or never written at all."""
        found = []
        for block, landing in enumerate(self._landings):
            absent = self._expected[block] != ZERO_HASH
            absent[landing.written] = False
            pages = np.flatnonzero(self._wrong[block] | absent).astype(np.uint32)
            if len(pages):
                found.append((block, pages))
        return found
