"""The dispatcher: within credit and window, in order, and nothing off its hands too early."""

from contextlib import AbstractContextManager, nullcontext
from typing import cast

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pipeline.source.codec_choice import Choice, FixedCodec
from pipeline.source.dirty import Planned
from pipeline.source.dispatcher import CREDIT, Dispatcher
from pipeline.source.scans import SCAN_PAGES
from protocol.errors import RemoteProtocolError
from tests.workers.memories import indices
from workers.messages import ScanJob, Scanned, SendJob, Sent, ToWorker
from workers.pool import Pool


class RecordingPool:
    """Keeps what the workers are told."""

    def __init__(self, workers: int) -> None:
        self.workers = list(range(workers))
        self.endpoints = dict.fromkeys(self.workers, "")
        self.told: list[tuple[int, ToWorker]] = []

    def send(self, worker: int, message: ToWorker) -> None:
        """Keep it."""
        self.told.append((worker, message))

    def together(self) -> AbstractContextManager[None]:
        """It is kept anyway."""
        return nullcontext()

    def jobs(self) -> list[SendJob]:
        """The batches that were given out."""
        return [message for _, message in self.told if isinstance(message, SendJob)]

    def scans(self) -> list[ScanJob]:
        """The scans that were given out."""
        return [message for _, message in self.told if isinstance(message, ScanJob)]


def opened(workers: int = 2, lanes: int = 3, window: int = 100) -> tuple[Dispatcher, RecordingPool]:
    """A dispatcher over a pool that records, in its first round."""
    pool = RecordingPool(workers)
    dispatcher = Dispatcher(cast(Pool, pool), lambda *_: None, FixedCodec(Choice("zstd", 3)))
    dispatcher.open(lanes, window)
    dispatcher.start_round()
    return dispatcher, pool


def batches(*pages: int, block: int = 0) -> list[Planned]:
    """A batch of one page each."""
    return [(block, indices(page)) for page in pages]


def sent(seq: int) -> Sent:
    """A worker's word that the frame is out."""
    return Sent(seq, 0, 0, 1, 100, 90, True, 1, 1, 0)


def test_a_worker_that_is_retired_gets_nothing_and_is_waited_for() -> None:
    """A frame that is lost with a worker that was let go; a worker that never gets away."""
    dispatcher, pool = opened()
    dispatcher.plan(batches(*range(20)), 20)
    dispatcher.feed()
    who = pool.told[0][0]
    dispatcher.retire(who)
    assert not dispatcher.is_done_with(who)
    held = [job.seq for at, job in pool.told if at == who and isinstance(job, SendJob)]
    pool.told.clear()
    for seq in held:
        dispatcher.heard_sent(who, sent(seq))
    dispatcher.add_worker(who)
    dispatcher.feed()
    assert not [at for at, _ in pool.told if at == who]
    assert not dispatcher.is_done_with(who), "what it sent is not applied"
    dispatcher.heard_applied(max(held))
    assert dispatcher.is_done_with(who)


def test_a_batch_becomes_a_job_with_everything_that_its_worker_needs() -> None:
    """A page list of another batch, a lane that does not exist, a round that is over."""
    dispatcher, pool = opened(lanes=3)
    dispatcher.start_round()
    dispatcher.plan([(1, indices(4, 5, 9)), (0, indices(7))], 4)
    dispatcher.final = True
    dispatcher.feed()
    assert pool.jobs() == [
        SendJob(1, 0, 2, 1, 1, True, "zstd", 3, indices(4, 5, 9).tobytes()),
        SendJob(2, 0, 2, 0, 2, True, "zstd", 3, indices(7).tobytes()),
    ]


def test_credit_is_shared_evenly_and_never_exceeded() -> None:
    """A queue of jobs at one worker while another has nothing to do."""
    dispatcher, pool = opened(workers=3)
    dispatcher.plan(batches(*range(50)), 50)
    dispatcher.feed()
    dispatcher.feed()
    assert [worker for worker, _ in pool.told] == [0, 1, 2] * CREDIT
    dispatcher.heard_sent(1, sent(2))
    dispatcher.feed()
    assert [worker for worker, _ in pool.told[3 * CREDIT :]] == [1]


def test_the_window_is_never_exceeded() -> None:
    """More frames out than the destination has slots: a protocol error there."""
    dispatcher, pool = opened(workers=4, window=5)
    dispatcher.plan(batches(*range(50)), 50)
    dispatcher.feed()
    assert len(pool.jobs()) == 5
    for seq in range(1, 6):
        dispatcher.heard_sent(seq % 4, sent(seq))
    dispatcher.feed()
    assert len(pool.jobs()) == 5, "sent is not applied"
    dispatcher.heard_applied(2)
    dispatcher.feed()
    assert [job.seq for job in pool.jobs()] == [1, 2, 3, 4, 5, 6, 7]


def test_lanes_are_used_in_turn() -> None:
    """One decompress worker that gets all frames."""
    dispatcher, pool = opened(workers=4, lanes=3)
    dispatcher.plan(batches(*range(9)), 9)
    dispatcher.feed()
    assert sorted(job.lane for job in pool.jobs()) == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert {job.lane for job in pool.jobs()[:3]} == {0, 1, 2}


def test_batches_go_before_scans() -> None:
    """Pages that wait behind a look at all of memory, in the downtime."""
    dispatcher, pool = opened(workers=1)
    dispatcher.scans.plan((SCAN_PAGES * 9,))
    dispatcher.plan(batches(1), 1)
    dispatcher.feed()
    kinds = [SendJob, *[ScanJob] * (CREDIT - 1)]
    assert [type(message) for _, message in pool.told] == kinds
    dispatcher.plan(batches(2), 1)
    dispatcher.heard_scanned(0, Scanned(1, b"", 5))
    dispatcher.feed()
    assert [job.seq for job in pool.jobs()] == [1, 2]


def test_scans_go_on_where_the_window_is_full() -> None:
    """Workers that idle while they could look for what the tracker missed."""
    dispatcher, pool = opened(workers=1, window=1)
    dispatcher.scans.plan((5,))
    dispatcher.plan(batches(1, 2), 2)
    dispatcher.feed()
    assert (len(pool.jobs()), len(pool.scans())) == (1, 1)


def test_a_scan_covers_every_page_once() -> None:
    """A range that nobody looks at: the last one, or one that goes on behind its block."""
    dispatcher, pool = opened(workers=10)
    blocks = (SCAN_PAGES * 2 + 7, 1, SCAN_PAGES)
    dispatcher.scans.plan(blocks)
    dispatcher.feed()
    seen = [(s.block, page) for s in pool.scans() for page in range(s.first, s.first + s.count)]
    assert seen == [(block, page) for block, pages in enumerate(blocks) for page in range(pages)]
    assert len({scan.job for scan in pool.scans()}) == len(pool.scans())


def test_a_sample_scan_takes_every_so_many_th_range_of_all_blocks() -> None:
    """A pace measured in the first block alone, or a "sample" that is all of memory."""
    dispatcher, pool = opened(workers=10)
    dispatcher.scans.plan((SCAN_PAGES * 3, SCAN_PAGES * 3), every=2)
    dispatcher.feed()
    starts = [(scan.block, scan.first // SCAN_PAGES) for scan in pool.scans()]
    assert starts == [(0, 0), (0, 2), (1, 1)]


def test_a_scan_that_is_done_gives_credit_and_its_pages() -> None:
    """A worker that gets nothing any more; pages counted for another block."""
    dispatcher, pool = opened(workers=1)
    dispatcher.scans.plan((5, 9))
    dispatcher.feed()
    first, second = pool.scans()
    assert not dispatcher.scans.all_done
    job, pages = dispatcher.heard_scanned(0, Scanned(second.job, indices(3, 8).tobytes(), 5))
    assert (job, pages.tolist()) == (second, [3, 8])
    assert not dispatcher.scans.all_done
    dispatcher.heard_scanned(0, Scanned(first.job, b"", 5))
    assert dispatcher.scans.all_done
    dispatcher.plan(batches(*range(9)), 9)
    dispatcher.feed()
    assert len(pool.jobs()) == CREDIT


@pytest.mark.parametrize("seq", [1, 4, 2**40])
def test_applied_backwards_or_never_given_out_is_refused(seq: int) -> None:
    """A peer that makes us believe that memory is across, or that frees a batch twice."""
    dispatcher, _ = opened()
    dispatcher.plan(batches(1, 2, 3), 3)
    dispatcher.feed()
    dispatcher.heard_applied(2)
    with pytest.raises(RemoteProtocolError, match=f"applied {seq}, after 2; 3 is the last"):
        dispatcher.heard_applied(seq)
    assert (dispatcher.applied, dispatcher.pages_pending) == (2, 1)
    assert dispatcher.heard_applied(2) == [], "to hear it again is no harm"


def test_pending_pages_count_until_they_are_applied() -> None:
    """A downtime estimated without what is still on its way."""
    dispatcher, _ = opened()
    dispatcher.plan([(0, indices(1, 2, 3)), (1, indices(4))], 4)
    dispatcher.plan([(0, indices(8, 9))], 2)
    assert dispatcher.pages_pending == 6
    dispatcher.feed()
    block, pages = dispatcher.heard_sent(0, sent(1))
    assert (block, pages.tolist()) == (0, [1, 2, 3])
    assert dispatcher.pages_pending == 6
    assert [(block, pages.tolist()) for block, pages in dispatcher.heard_applied(2)] == [
        (0, [1, 2, 3]),
        (1, [4]),
    ]
    assert dispatcher.pages_pending == 2


def test_what_is_planned_later_comes_later_and_nothing_is_lost() -> None:
    """The batch that was at hand when more was planned, dropped or sent twice."""
    dispatcher, pool = opened(workers=1)
    dispatcher.plan(batches(1, 2), 2)
    dispatcher.plan([], 0)
    dispatcher.plan(batches(3), 1)
    dispatcher.feed()
    assert [np.frombuffer(job.pages, np.uint32).tolist() for job in pool.jobs()] == [[1], [2], [3]]
    assert dispatcher.all_given


def test_batches_are_cut_when_they_are_given_out() -> None:
    """A round of all of a guest's memory, cut into batches at once."""
    dispatcher, _ = opened(workers=1, window=2)
    cut: list[int] = []

    def cutting() -> Planned:
        cut.append(len(cut))
        return 0, indices(len(cut))

    dispatcher.plan((cutting() for _ in range(1000)), 1000)
    dispatcher.feed()
    assert len(cut) == 3, "two out, one at hand"


class Dispatching(RuleBasedStateMachine):
    """Rounds, workers and a destination in any order; what must hold all the time."""

    WINDOW, WORKERS = 7, 3

    def __init__(self) -> None:
        super().__init__()
        self.dispatcher, self.pool = opened(self.WORKERS, 2, self.WINDOW)
        self.planned = 0
        self.held: dict[int, list[ToWorker]] = {worker: [] for worker in self.pool.workers}
        self.done: set[int] = set()
        self.read = 0

    def _collect(self) -> None:
        for worker, message in self.pool.told[self.read :]:
            self.held[worker].append(message)
        self.read = len(self.pool.told)

    @rule(count=st.integers(0, 10))
    def plan(self, count: int) -> None:
        """More pages are dirty."""
        pages = range(self.planned, self.planned + count)
        self.planned += count
        self.dispatcher.plan(batches(*pages), count)

    @rule()
    def scan(self) -> None:
        """A look at memory."""
        self.dispatcher.scans.plan((SCAN_PAGES * 2,))

    @rule()
    def feed(self) -> None:
        """Give out what may be given out."""
        self.dispatcher.feed()
        self._collect()
        may_give = any(len(jobs) < CREDIT for jobs in self.held.values())
        out = self.dispatcher.last_seq - self.dispatcher.applied
        assert self.dispatcher.all_given or not may_give or out == self.WINDOW

    @rule(data=st.data())
    @precondition(lambda self: any(self.held.values()))
    def work(self, data: st.DataObject) -> None:
        """A worker finishes its oldest job."""
        worker = data.draw(st.sampled_from([w for w, jobs in self.held.items() if jobs]))
        match self.held[worker].pop(0):
            case SendJob(seq=seq):
                assert len(self.dispatcher.heard_sent(worker, sent(seq))[1]) == 1
                self.done.add(seq)
            case ScanJob(job=job):
                self.dispatcher.heard_scanned(worker, Scanned(job, b"", 1))

    @rule(data=st.data())
    def apply(self, data: st.DataObject) -> None:
        """The destination has come further."""
        furthest = self.dispatcher.applied
        while furthest + 1 in self.done:
            furthest += 1
        seq = data.draw(st.integers(self.dispatcher.applied, furthest))
        before = self.dispatcher.applied
        assert len(self.dispatcher.heard_applied(seq)) == seq - before

    @invariant()
    def within_all_bounds(self) -> None:
        """Window and credit hold, seqs are dense, pages are given out in order, once."""
        self._collect()
        jobs = self.pool.jobs()
        assert [job.seq for job in jobs] == list(range(1, len(jobs) + 1))
        given = [int(np.frombuffer(job.pages, np.uint32)[0]) for job in jobs]
        assert given == list(range(len(jobs)))
        assert len(jobs) - self.dispatcher.applied <= self.WINDOW
        assert all(len(held) <= CREDIT for held in self.held.values())
        assert self.dispatcher.pages_pending == self.planned - self.dispatcher.applied
        assert self.dispatcher.all_given == (len(jobs) == self.planned)
        assert self.dispatcher.all_sent == (len(self.done) == self.planned)
        assert self.dispatcher.all_applied == (self.dispatcher.applied == self.planned)


TestDispatching = Dispatching.TestCase
TestDispatching.settings = settings(deadline=None, max_examples=30, stateful_step_count=40)
