"""The wire limit: never exceeded, fully used, the same for all workers, never stuck."""

import heapq
import os
import signal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.workers import bodies
from tests.workers.driving import Context, hear, pid, started
from tests.workers.memories import indices
from workers.live import DEPTH_NS, LiveSettings
from workers.memory import PassedFd
from workers.messages import Checked, ReadBack, ScanJob

SECOND = 1_000_000_000
START = 1_000 * SECOND


class Bucket(LiveSettings):
    """A bucket with its memory."""

    def __init__(self, rate: int) -> None:
        self.fd = self.memory()
        super().__init__(self.fd)
        self.rate = rate

    def __enter__(self) -> "Bucket":
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.fd)


def sent(bucket: Bucket, frames: list[int], senders: int, until_ns: int) -> list[tuple[int, int]]:
    """What that many senders send, one frame after the other: (time, bytes), rising in time."""
    turns = [(START, sender) for sender in range(senders)]
    leaves: list[tuple[int, int]] = []
    while turns:
        now_ns, sender = heapq.heappop(turns)
        if now_ns < START + until_ns:
            frame_bytes = frames[len(leaves) % len(frames)]
            leaves_at = now_ns + bucket.draw(frame_bytes, now_ns)
            leaves.append((leaves_at, frame_bytes))
            heapq.heappush(turns, (leaves_at, sender))
    return sorted(leaves)


@settings(deadline=None, max_examples=40)
@given(
    frames=st.lists(st.integers(4_000, 300_000), min_size=1, max_size=8),
    senders=st.integers(1, 8),
    rate=st.sampled_from([1 << 20, 20 << 20]),
)
def test_no_second_is_over_the_limit_and_the_average_uses_it(
    frames: list[int], senders: int, rate: int
) -> None:
    """A limit for each worker instead of for all; a bucket that never fills up again."""
    frames = [frame * 10 for frame in frames] if rate > 2 << 20 else frames
    with Bucket(rate) as bucket:
        leaves = sent(bucket, frames, senders, 3 * SECOND)
    times = np.array([time for time, _ in leaves])
    total = np.concatenate([[0], np.cumsum([size for _, size in leaves])])
    ends = np.searchsorted(times, times + SECOND)
    assert (total[ends] - total[:-1]).max() <= 1.05 * rate + max(frames)
    elapsed_s = (times[-1] - START) / SECOND
    assert total[-1] >= 0.95 * rate * elapsed_s


def test_a_large_frame_goes_into_debt() -> None:
    """A frame larger than the bucket that waits for ever, or is let through for nothing."""
    with Bucket(1_000_000) as bucket:
        assert bucket.draw(3_000_000, START) == 0
        assert bucket.draw(1, START) == 3 * SECOND - DEPTH_NS
        assert bucket.draw(1, START + 4 * SECOND) == 0


def test_idling_saves_up_50_ms_and_no_more() -> None:
    """A worker that was idle for a minute and then floods the link for a minute."""
    with Bucket(1_000_000) as bucket:
        bucket.draw(1_000, START)
        now_ns = START + 60 * SECOND
        waits = [bucket.draw(10_000, now_ns) for _ in range(7)]
    assert waits == [0, 0, 0, 0, 0, 0, 10_000_000]


def test_no_limit_is_no_wait_and_leaves_no_debt() -> None:
    """A limit of 0 taken for 0 bytes a second; a debt from before it was lifted."""
    with Bucket(0) as bucket:
        assert [bucket.draw(1 << 30, START) for _ in range(3)] == [0, 0, 0]
        bucket.rate = 1_000_000
        assert bucket.draw(1 << 20, START) == 0
        bucket.rate = 0
        assert bucket.draw(1 << 20, START) == 0


def test_the_rate_is_seen_at_the_other_end() -> None:
    """A change while a migration runs that is not seen, or is overwritten by a draw."""
    with Bucket(5) as bucket:
        other = LiveSettings(bucket.fd)
        bucket.rate = 2**40
        bucket.draw(100, START)
        assert other.rate == 2**40


FRAME = 1_000
DRAWS = 40_000


def draw(count: int) -> ScanJob:
    """Asks a worker for that many draws."""
    return ScanJob(0, 0, FRAME, count)


def test_two_processes_draw_on_one_bucket(context: Context) -> None:
    """A draw that is lost when two workers draw at once: both send, one pays."""
    with (
        Bucket(1_000_000) as bucket,
        started(
            context,
            bodies.drawing,
            lambda address: bodies.WithFile(address, PassedFd(bucket.fd)),
            count=2,
        ) as pool,
    ):
        pool.broadcast(draw(DRAWS))
        for _ in pool.workers:
            hear(pool, Checked)
        assert bucket.draw(0, bodies.NOW_NS) == 2 * DRAWS * FRAME * 1_000 - DEPTH_NS


def test_a_worker_that_stands_still_with_the_lock_lets_all_others_go_on(context: Context) -> None:
    """Workers, or a coordinator, that wait for a process that hangs for as long as it does."""
    with (
        Bucket(1_000_000) as bucket,
        started(
            context,
            bodies.drawing,
            lambda address: bodies.WithFile(address, PassedFd(bucket.fd)),
            count=2,
        ) as pool,
    ):
        pool.send(0, ReadBack(0, 0, indices().tobytes()))
        hear(pool, Checked)
        os.kill(pid(pool, 0), signal.SIGSTOP)
        pool.send(1, draw(1))
        hear(pool, Checked)
        bucket.rate = 5
        assert LiveSettings(bucket.fd).rate == 5


@pytest.mark.parametrize("rate", [10, 2**33])
def test_extreme_rates_neither_overflow_nor_divide_by_nothing(rate: int) -> None:
    """A wait that wraps around, for the slowest limit there is and for a fast link."""
    with Bucket(rate) as bucket:
        bucket.draw(4 << 20, START)
        wait_ns = bucket.draw(0, START)
    assert wait_ns == max(0, (4 << 20) * SECOND // rate - DEPTH_NS)
