"""Reassembly: whatever the order of arrival, memory is as if frames came in theirs."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.destination.landing import Landing
from pipeline.destination.reassembly import GRANTS, Landed, Reassembly
from pipeline.guests.base import GuestBlock
from protocol.errors import RemoteProtocolError
from protocol.frames import FrameLimits, PageKind
from protocol.limits import PAGE_BYTES
from tests.workers.memories import indices, memory_file, page_at
from workers.memory import mapped_bytes
from workers.messages import Arrived
from workers.pages import ZERO_HASH, Hashes

BLOCK_PAGES = (6, 4)
BATCH_PAGES = 4
LIMITS = FrameLimits(bytes(16), BLOCK_PAGES, BATCH_PAGES)
ZERO = bytes(PAGE_BYTES)

Frame = tuple[int, dict[int, bool]]
"""Block number, and for each page whether it has data."""


def content(seq: int, page: int) -> bytes:
    """What frame `seq` says that a page holds."""
    return bytes([seq % 255 + 1, page]) * (PAGE_BYTES // 2)


def hash_value(seq: int, page: int) -> int:
    """The hash that frame `seq` brings along for a page; it is only noted here."""
    return seq * 1000 + page


@dataclass
class Destination:
    """A reassembly over two blocks, and what its workers hold."""

    memory: list[int]
    reassembly: Reassembly
    slots: NDArray[np.uint8]
    granted: dict[int, list[int]] = field(default_factory=dict)
    used: dict[int, int] = field(default_factory=dict)

    def fill(self, seq: int, frame: Frame, slot: int, *, attempt: int = 0) -> Arrived:
        """Fill a slot as a worker does, and report it."""
        block, pages = frame
        data = [page for page, has_data in pages.items() if has_data]
        raw = b"".join(content(seq, page) for page in data)
        start = slot * LIMITS.payload_bytes
        self.slots[start : start + LIMITS.payload_bytes] = 0xEE
        self.slots[start : start + len(raw)] = np.frombuffer(raw, np.uint8)
        kinds = [PageKind.DATA if has_data else PageKind.ZERO for has_data in pages.values()]
        hashes = np.array([hash_value(seq, page) for page in data], np.uint64)
        return Arrived(
            seq,
            attempt,
            1,
            block,
            slot,
            indices(*pages).tobytes(),
            bytes(kinds),
            hashes.tobytes(),
            1,
        )

    def deliver(self, worker: int, seq: int, frame: Frame) -> list[Landed]:
        """A frame arrives at a worker, which fills one of its slots; new ones are granted."""
        if worker not in self.granted:
            self.granted[worker], self.used[worker] = self.reassembly.grant(GRANTS), 0
        assert len(self.granted[worker]) >= 2, "one to fill and one at hand"
        arrived = self.fill(seq, frame, self.granted[worker].pop())
        landed = self.reassembly.take(arrived)
        self.used[worker] += 1
        if self.used[worker] == GRANTS // 2:
            self.used[worker] = 0
            self.granted[worker] += self.reassembly.grant(GRANTS // 2)
        return landed

    def contents(self) -> list[list[bytes]]:
        """All pages of all blocks."""
        return [
            [page_at(fd, page) for page in range(pages)]
            for fd, pages in zip(self.memory, BLOCK_PAGES, strict=True)
        ]


@contextmanager
def destination(
    window: int = 4, workers: int = 1, expected: list[Hashes] | None = None
) -> Iterator[Destination]:
    """A destination whose memory is empty."""
    with ExitStack() as stack:
        memory = [stack.enter_context(memory_file(pages)) for pages in BLOCK_PAGES]
        landings = [
            Landing(GuestBlock("ram", pages, fd))
            for pages, fd in zip(BLOCK_PAGES, memory, strict=True)
        ]
        reassembly = Reassembly(landings, LIMITS, window, workers, expected)
        stack.callback(reassembly.close)
        yield Destination(memory, reassembly, mapped_bytes(reassembly.fd))


def in_order(frames: list[Frame]) -> list[list[bytes]]:
    """What memory must hold when all frames are applied."""
    memory = [[ZERO] * pages for pages in BLOCK_PAGES]
    for seq, (block, pages) in enumerate(frames, 1):
        for page, has_data in pages.items():
            memory[block][page] = content(seq, page) if has_data else ZERO
    return memory


def frames_of(block: int) -> st.SearchStrategy[Frame]:
    """Batches of a block, the empty one among them."""
    pages = st.dictionaries(
        st.integers(0, BLOCK_PAGES[block] - 1), st.booleans(), max_size=BATCH_PAGES
    )
    return pages.map(lambda found: (block, dict(sorted(found.items()))))


@settings(deadline=None, max_examples=80)
@given(
    frames=st.lists(frames_of(0) | frames_of(1), max_size=25),
    window=st.integers(1, 6),
    workers=st.integers(1, 4),
    data=st.data(),
)
def test_any_order_of_arrival_gives_the_memory_of_the_right_order(
    frames: list[Frame], window: int, workers: int, data: st.DataObject
) -> None:
    """An older page over a newer one; slots that run out, so that the missing frame has none."""
    waiting = dict(enumerate(frames, 1))
    landed: list[Landed] = []
    with destination(window, workers) as there:
        while waiting:
            within = [seq for seq in waiting if seq <= there.reassembly.applied + window]
            seq = data.draw(st.sampled_from(within))
            worker = data.draw(st.integers(0, workers - 1))
            landed += there.deliver(worker, seq, frames[seq - 1])
            if data.draw(st.booleans()):  # a second copy of it may come, at any worker
                repeated = data.draw(st.integers(0, workers - 1))
                assert there.deliver(repeated, seq, frames[seq - 1]) == []
            del waiting[seq]
        assert there.contents() == in_order(frames)
        assert there.reassembly.applied == len(frames)
    assert [(block, pages.tolist()) for block, pages in landed] == [
        (block, list(pages)) for block, pages in frames
    ]


def test_nothing_is_written_before_its_turn() -> None:
    """A destination that is not a prefix of what the source sent."""
    with destination() as there:
        for seq in (3, 2):
            assert there.deliver(0, seq, (0, {seq: True})) == []
        assert there.contents() == in_order([])
        assert there.reassembly.applied == 0
        landed = there.deliver(0, 1, (0, {0: True}))
        assert [pages.tolist() for _, pages in landed] == [[0], [2], [3]]
        assert there.reassembly.applied == 3


def test_slots_that_wait_are_not_granted() -> None:
    """A frame that waits, and over which another one is unpacked."""
    with destination(window=4, workers=1) as there:
        waiting = there.reassembly.grant(3)
        for seq, slot in zip((2, 3, 4), waiting, strict=True):
            there.reassembly.take(there.fill(seq, (0, {seq: True}), slot))
        free = there.reassembly.grant(4 + GRANTS - 3)
        assert len({*waiting, *free}) == 4 + GRANTS
        with pytest.raises(IndexError):
            there.reassembly.grant(1)
        there.reassembly.take(there.fill(1, (0, {1: True}), free[0]))
        assert sorted(there.reassembly.grant(4)) == sorted([*waiting, free[0]])


@pytest.mark.parametrize("first", [1, 2])
def test_a_second_copy_frees_its_slot_and_changes_nothing(first: int) -> None:
    """A slot lost with every redo; a late copy written over newer pages."""
    with destination(window=4, workers=1) as there:
        slots = there.reassembly.grant(4 + GRANTS)
        there.reassembly.take(there.fill(first, (0, {0: True}), slots[0]))
        before = there.contents()
        late = there.fill(first, (0, {0: False, 1: True}), slots[1], attempt=1)
        assert there.reassembly.take(late) == []
        assert there.contents() == before
        assert slots[1] in there.reassembly.grant(2 if first == 1 else 1)


@pytest.mark.parametrize("seq", [0, 5, 2**40])
def test_a_seq_outside_the_window_is_the_peers_fault(seq: int) -> None:
    """A sender that fills all slots with frames that cannot be applied."""
    with destination(window=4) as there:
        (slot,) = there.reassembly.grant(1)
        with pytest.raises(RemoteProtocolError, match="outside the window: 0 applied, window 4"):
            there.reassembly.take(there.fill(seq, (0, {0: True}), slot))


def tables() -> list[Hashes]:
    """What is expected of memory before anything came."""
    return [np.full(pages, ZERO_HASH, np.uint64) for pages in BLOCK_PAGES]


def test_the_hashes_of_what_landed_are_expected_of_memory() -> None:
    """A comparison with the hashes of another frame, or of one that is not applied yet."""
    expected = tables()
    with destination(expected=expected) as there:
        there.deliver(0, 2, (0, {1: True, 2: False}))
        assert all((table == ZERO_HASH).all() for table in expected)
        there.deliver(0, 1, (0, {0: False, 1: True, 2: True, 5: True}))
        assert expected[0].tolist() == [
            ZERO_HASH,
            hash_value(2, 1),
            ZERO_HASH,
            ZERO_HASH,
            ZERO_HASH,
            hash_value(1, 5),
        ]
        assert (expected[1] == ZERO_HASH).all()


def test_a_frame_without_hashes_is_refused_where_they_are_needed() -> None:
    """Pages that no verification ever looks at."""
    with destination(expected=tables()) as there:
        (slot,) = there.reassembly.grant(1)
        arrived = there.fill(1, (0, {0: True}), slot)
        bare = Arrived(1, 0, 1, 0, slot, arrived.pages, arrived.kinds, None, 1)
        with pytest.raises(RemoteProtocolError, match="seq 1: no page hashes, verify is full"):
            there.reassembly.take(bare)
        assert there.contents() == in_order([])


def test_the_slots_are_as_many_as_the_window_and_the_grants() -> None:
    """Memory that grows with the guest, or slots too few for the missing frame."""
    with destination(window=5, workers=3) as there:
        slots = os.fstat(there.reassembly.fd).st_size // LIMITS.payload_bytes
        assert slots == 5 + 3 * GRANTS
        assert sorted(there.reassembly.grant(slots)) == list(range(slots))


def test_close_is_idempotent() -> None:
    """A descriptor that belongs to somebody else by then, closed by the second close."""
    with destination() as there:
        there.reassembly.close()
        other = os.open("/dev/null", os.O_RDONLY)
        there.reassembly.close()
        os.close(other)
