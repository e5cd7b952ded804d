"""How many compress workers there are, against how many are wanted.

One that is let go gets no more work; it ends when all that it has sent is applied, since what
lies in its connections ends with it.
"""

from collections.abc import Callable

import structlog

from pipeline.source.dispatcher import Dispatcher
from pipeline.source.staffing import Staffing
from protocol.errors import WorkerError
from workers.pool import Pool


class Staff:
    """Owned by the coordinator's thread; `wanted` may change at any time."""

    def __init__(self, pool: Pool, dispatcher: Dispatcher) -> None:
        self._pool = pool
        self._dispatcher = dispatcher
        self._leaving: set[int] = set()
        self.wanted: int | None = None
        """None: as many as there are."""
        self.staffing: Staffing | None = None
        """What decides that, where nobody has said how many."""

    @property
    def working(self) -> list[int]:
        """The workers that get work, or will."""
        return [worker for worker in self._pool.workers if worker not in self._leaving]

    def settle(self, tick: Callable[[], None]) -> None:
        """Take one on, or let some go; `tick` is called while one is started."""
        if self.staffing is not None:
            self.wanted = self.staffing.wanted
        self._leaving.intersection_update(self._pool.workers)
        working, final = self.working, self._dispatcher.final
        if self.wanted is not None and len(working) > self.wanted:
            self._let_go(working[self.wanted :])
        elif self.wanted is not None and len(working) < self.wanted and not final:
            self._take_on(tick)
        for worker in [one for one in self._leaving if self._dispatcher.is_done_with(one)]:
            self._leaving.remove(worker)
            self._dispatcher.forget(worker)
            self._pool.dismiss(worker)

    def _let_go(self, workers: list[int]) -> None:
        for worker in workers:
            self._leaving.add(worker)
            self._dispatcher.retire(worker)

    def _take_on(self, tick: Callable[[], None]) -> None:
        try:
            self._pool.add(tick)
        except WorkerError as error:
            self.wanted = len(self.working)
            structlog.get_logger().warning(f"{error}: it stays at {self.wanted} compress workers")
