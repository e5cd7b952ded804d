"""The wire limit, which changes while workers run, in memory that coordinator and workers share.

It is one bucket for all workers of a coordinator, 50 ms deep; a frame
larger than what is left goes into debt, so that the next one waits longer.
"""

from contextlib import AbstractContextManager
from time import monotonic_ns

import numpy as np

from workers.memory import mapped_bytes, record_lock, shared_memory

DEPTH_NS = 50_000_000
LOCK_NS = 20_000_000
"""A draw takes some us; who holds the lock longer does not run."""
_RATE, _EMPTY_AT, _WORDS = range(3)


class LiveSettings:
    """The wire rate; the coordinator writes, workers read.

    `fd` is the caller's. A worker that dies while it holds the lock gives it back:
    the kernel drops a record lock with its process.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._words = mapped_bytes(fd)[: _WORDS * 8].view(np.int64)

    @staticmethod
    def memory() -> int:
        """A fresh descriptor to make one of."""
        return shared_memory("live", _WORDS * 8)

    @property
    def rate(self) -> int:
        """The wire limit in bytes/s; 0 is none."""
        return int(self._words[_RATE])

    @rate.setter
    def rate(self, rate: int) -> None:
        now_ns = monotonic_ns()
        with self._bucket():
            before, self._words[_RATE] = self.rate, rate
            self._words[_EMPTY_AT] = self.moved(int(self._words[_EMPTY_AT]), before, now_ns)

    def moved(self, leaves_ns: int, before: int, now_ns: int) -> int:
        """When a frame leaves that would have left at `leaves_ns` by the rate `before`."""
        waits_ns = max(0, leaves_ns - now_ns)
        return min(leaves_ns, now_ns) + (waits_ns * before // self.rate if self.rate else 0)

    def draw(self, frame_bytes: int, now_ns: int) -> int:
        """Take `frame_bytes` out of the bucket; how long to wait before sending them, in ns."""
        rate = self.rate
        if not rate:
            return 0
        with self._bucket():
            leaves_at = max(int(self._words[_EMPTY_AT]), now_ns - DEPTH_NS)
            self._words[_EMPTY_AT] = leaves_at + frame_bytes * 1_000_000_000 // rate
        return max(0, leaves_at - now_ns)

    def _bucket(self) -> AbstractContextManager[bool]:
        """The bucket's lock. It is done without where its holder stands still: of two that draw at
        once one counts, which is better than a coordinator or a worker that waits for ever."""
        return record_lock(self._fd, LOCK_NS)

    def close(self) -> None:
        """Let go of the shared memory; what was set stays to be read."""
        self._words = self._words.copy()
