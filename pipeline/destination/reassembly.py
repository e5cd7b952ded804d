"""Takes filled slots in order of their seq, writes them to memory, frees them.

A slot belongs to the pool's worker from its grant to its report, then to this stage
until its batch is written. There are window + GRANTS for each worker of them, and at
most `window` lie here, so that a worker that has used some always gets as many new ones,
and the frame that everybody waits for always finds one.
"""

import os
from collections.abc import Iterable
from time import monotonic_ns

import numpy as np
from numpy.typing import NDArray

from pipeline.destination.landing import Landing
from protocol.errors import RemoteProtocolError
from protocol.frames import ZERO, FrameLimits
from protocol.reorder import ReorderWindow
from workers.memory import mapped_bytes, shared_memory
from workers.messages import Arrived
from workers.pages import ZERO_HASH, Hashes, PageBuffer, Pages

GRANTS = 4
"""Slots a worker is given; it gets them back in pairs, so that it never holds less than two
(one to fill, one at hand) and every second report is answered."""

Landed = tuple[int, Pages]


class Reassembly:
    """The slots, the frames that wait for their turn, and the memory they go to.

    `expected` is what the source says it sent, uint64 of shape (pages,) a block, or
    None without verification.
    """

    def __init__(
        self,
        landings: list[Landing],
        limits: FrameLimits,
        window: int,
        workers: int,
        expected: list[Hashes] | None,
    ) -> None:
        self._landings = landings
        self._expected = expected
        self._waiting: ReorderWindow[Arrived] = ReorderWindow(window)
        count = window + GRANTS * workers
        self.fd = shared_memory("slots", count * limits.payload_bytes)
        memory = mapped_bytes(self.fd)
        self._slots = [
            PageBuffer(limits.batch_pages, memory[start : start + limits.payload_bytes])
            for start in range(0, count * limits.payload_bytes, limits.payload_bytes)
        ]
        self._free = list(range(count))
        self.write_ns = 0
        self.landed_pages = 0
        self.round_no = 0

    @property
    def applied(self) -> int:
        """All frames up to this seq are in memory."""
        return self._waiting.applied

    def grant(self, count: int) -> list[int]:
        """`count` free slots, for a worker."""
        return [self._free.pop() for _ in range(count)]

    def free(self, slots: Iterable[int]) -> None:
        """Slots of a worker that is dead, so that nobody fills them any more."""
        self._free.extend(slots)

    def take(self, arrived: Arrived) -> list[Landed]:
        """Take a filled slot; the block and pages of every batch that is in memory by that."""
        if not self._waiting.add(arrived.seq, arrived):
            self._free.append(arrived.slot)
            return []
        began = monotonic_ns()
        landed = []
        while (head := self._waiting.head()) is not None:
            landed.append((head.block, self._land(head)))
            self._waiting.advance()
            self._free.append(head.slot)
        self.write_ns += monotonic_ns() - began
        return landed

    def _land(self, batch: Arrived) -> Pages:
        self.round_no = batch.round_no
        pages = np.frombuffer(batch.pages, np.uint32)
        self.landed_pages += len(pages)
        kinds = np.frombuffer(batch.kinds, np.uint8)
        if self._expected is not None:
            _note_hashes(self._expected[batch.block], batch, pages, kinds)
        self._landings[batch.block].write(pages, kinds, self._slots[batch.slot], batch.delta_bytes)
        return pages

    def close(self) -> None:
        """Give the slots' memory back. Idempotent."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def _note_hashes(expected: Hashes, batch: Arrived, pages: Pages, kinds: NDArray[np.uint8]) -> None:
    """Remember what the pages of `batch` must hash to; RemoteProtocolError without hashes."""
    if batch.hashes is None:
        raise RemoteProtocolError(f"frame of seq {batch.seq}: no page hashes, verify is full")
    expected[pages] = ZERO_HASH
    expected[pages[kinds != ZERO]] = np.frombuffer(batch.hashes, np.uint64)
