"""Batches that got lost: given out anew, once nobody has them in hand, and never for ever."""

from typing import cast

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pipeline.source.codec_choice import RAW, FixedCodec
from pipeline.source.dispatcher import CREDIT, Dispatcher
from protocol.limits import REDOS
from tests.pipeline.source.test_dispatcher import RecordingPool, batches
from workers.messages import Scanned, SendJob, Sent, ToWorker, Unsent
from workers.pages import Pages
from workers.pool import Pool


class Redoing:
    """A dispatcher of two workers and three lanes, and what it was told to mark dirty."""

    def __init__(self, window: int = 100) -> None:
        self.pool = RecordingPool(2)
        self.marked: list[tuple[int, list[int]]] = []
        self.dispatcher = Dispatcher(cast(Pool, self.pool), self._mark, FixedCodec(RAW))
        self.dispatcher.open(3, window)
        self.dispatcher.start_round()

    def _mark(self, block: int, pages: Pages) -> None:
        self.marked.append((block, pages.tolist()))

    def give(self, *pages: int) -> list[tuple[int, SendJob]]:
        """Plan a batch of each page, and give out what may be given out."""
        self.dispatcher.plan(batches(*pages, block=1), len(pages))
        return self.fed()

    def fed(self) -> list[tuple[int, SendJob]]:
        """What is given out now, and to whom."""
        self.pool.told.clear()
        self.dispatcher.feed()
        return [(who, job) for who, job in self.pool.told if isinstance(job, SendJob)]

    def sent(self, worker: int, job: SendJob) -> None:
        """A worker has sent a frame."""
        message = Sent(job.seq, job.attempt, 0, 1, 100, 90, True, 1, 1, 0)
        assert len(self.dispatcher.heard_sent(worker, message)[1]) == 1


def test_what_a_dead_worker_had_goes_to_another() -> None:
    """A batch that nobody sends, in hand or in a queue that died with the worker."""
    redoing = Redoing()
    (who, sent), (_, other), (_, in_hand) = redoing.give(7, 8, 9)
    redoing.sent(who, sent)
    redoing.dispatcher.lose_worker(who, "died")
    again = redoing.fed()
    assert [worker for worker, _ in again] == [1 - who] * 2
    assert [(job.seq, job.attempt, job.pages) for _, job in again] == [
        (sent.seq, 1, sent.pages),
        (in_hand.seq, 1, in_hand.pages),
    ]
    assert all(
        job.lane != before.lane for (_, job), before in zip(again, (sent, in_hand), strict=True)
    )
    assert redoing.marked == [(1, [7]), (1, [9])], "the guest may have written meanwhile"
    assert redoing.dispatcher.redone == 2
    assert other.seq not in {job.seq for _, job in again}


def test_what_a_worker_could_not_send_is_redone() -> None:
    """A batch in nobody's hand, and a worker that never gets another job."""
    redoing = Redoing()
    given = redoing.give(*range(2 * CREDIT))
    (who, job) = given[0]
    redoing.dispatcher.heard_unsent(who, Unsent(job.seq, job.attempt, "no way"))
    assert [(worker, one.seq, one.attempt) for worker, one in redoing.fed()] == [(who, 1, 1)]
    assert redoing.marked == [(1, [0])]


def test_nothing_is_given_to_a_dead_worker_and_its_successor_gets_its_share() -> None:
    """Jobs for a process that is not there; a migration that goes on with half of its cores."""
    redoing = Redoing()
    redoing.dispatcher.lose_worker(0, "died")
    assert {worker for worker, _ in redoing.give(*range(20))} == {1}
    redoing.dispatcher.add_worker(2)
    assert [worker for worker, _ in redoing.fed()] == [2] * CREDIT


def test_what_a_worker_is_doing_is_said() -> None:
    """ "Worker 0 hangs", and nobody knows at what."""
    redoing = Redoing()
    dispatcher = redoing.dispatcher
    dispatcher.scans.plan((2048,))
    (one, frame), (other, _), (_, _) = redoing.give(7, 8, 9)
    assert dispatcher.task_of(one) == "with frame 1 of round 1 in hand"
    scan = "the scan of block 0 from page 0 on"
    assert dispatcher.task_of(other) == f"with frame 2 of round 1 and {scan} in hand"
    redoing.sent(one, frame)
    assert dispatcher.task_of(one) == "with frame 3 of round 1 in hand"
    assert dispatcher.task_of(2) == "with nothing in hand"


def test_the_scans_of_a_dead_worker_are_done_by_another() -> None:
    """Pages that nobody looked at."""
    redoing = Redoing()
    redoing.dispatcher.scans.plan((4096,))
    redoing.dispatcher.feed()
    scans = redoing.pool.scans()
    assert len(scans) == 2
    redoing.dispatcher.lose_worker(0, "died")
    redoing.pool.told.clear()
    redoing.dispatcher.feed()
    assert redoing.pool.told == [(1, scans[0])]
    for scan in scans:
        redoing.dispatcher.heard_scanned(1, Scanned(scan.job, b"", 1))
    assert redoing.dispatcher.scans.all_done


def test_a_cut_connection_loses_what_was_sent_over_it_and_nothing_else() -> None:
    """Frames of other connections sent twice; a frame that is still in hand, given out twice."""
    redoing = Redoing()
    given = redoing.give(*range(6))
    worker, lane = given[0][0], given[0][1].lane
    for who, job in given[:4]:
        redoing.sent(who, job)
    redoing.dispatcher.lose_lane(worker, lane, "cut")
    expected = [j.seq for who, j in given[:4] if (who, j.lane) == (worker, lane)]
    assert [job.seq for _, job in redoing.fed()] == expected


def test_a_frame_that_is_refused_before_its_worker_says_sent() -> None:
    """A redo while the old worker still reads, and writes its hashes over those of the new one."""
    redoing = Redoing()
    ((who, job),) = redoing.give(1)
    redoing.dispatcher.redo(job.seq, "damaged")
    assert not redoing.fed()
    redoing.sent(who, job)
    ((_, again),) = redoing.fed()
    assert (again.seq, again.attempt) == (job.seq, 1)
    assert not redoing.dispatcher.all_sent
    assert not redoing.dispatcher.all_applied


def test_a_batch_of_the_stopped_guest_writes_its_hashes_and_needs_no_next_round() -> None:
    """A last round that is never the last."""
    redoing = Redoing()
    redoing.dispatcher.final = True
    ((who, job),) = redoing.give(1)
    redoing.sent(who, job)
    redoing.dispatcher.redo(job.seq, "damaged")
    ((_, again),) = redoing.fed()
    assert again.final
    assert redoing.marked == []


def test_a_batch_of_the_running_guest_stays_so_after_the_stop() -> None:
    """A hash of other bytes than those that arrived, because the guest was stopped between."""
    redoing = Redoing()
    ((who, job),) = redoing.give(1)
    redoing.sent(who, job)
    redoing.dispatcher.final = True
    redoing.dispatcher.redo(job.seq, "damaged")
    ((_, again),) = redoing.fed()
    assert not again.final
    assert redoing.marked == [(1, [1])]


@pytest.mark.parametrize("seq", [0, 1, 3, 2**63 - 1])
def test_a_redo_of_what_is_not_out_is_ignored(seq: int) -> None:
    """A peer that has us send what was never planned, or what is long applied."""
    redoing = Redoing()
    for who, job in redoing.give(1, 2):
        redoing.sent(who, job)
    redoing.dispatcher.heard_applied(1)
    redoing.dispatcher.redo(seq, "because")
    assert redoing.fed() == []
    assert redoing.dispatcher.redone == 0


def test_what_is_applied_meanwhile_is_not_sent_again() -> None:
    """A late copy for nothing; a job for a batch that is off our hands."""
    redoing = Redoing()
    ((who, job),) = redoing.give(1)
    redoing.sent(who, job)
    redoing.dispatcher.redo(1, "damaged")
    redoing.dispatcher.heard_applied(1)
    assert redoing.fed() == []
    assert redoing.dispatcher.all_sent


def test_a_few_redos_and_no_more() -> None:
    """A frame that kills every worker, or is damaged every time, sent for ever."""
    redoing = Redoing()
    ((who, job),) = redoing.give(1)
    for _ in range(REDOS):
        redoing.sent(who, job)
        redoing.dispatcher.redo(1, "damaged")
        ((who, job),) = redoing.fed()
    redoing.sent(who, job)
    assert redoing.dispatcher.given_up is None
    redoing.dispatcher.redo(1, "damaged")
    assert redoing.fed() == []
    given_up = (1, "frame 1 did not arrive, redone 3 times: damaged")
    assert redoing.dispatcher.given_up == given_up
    redoing.dispatcher.heard_applied(1)
    assert redoing.dispatcher.given_up is None, "the last copy has arrived after all"


def test_the_fence_waits_for_late_copies() -> None:
    """A copy of the round before that writes its hashes over those of this round."""
    redoing = Redoing()
    ((who, job),) = redoing.give(1)
    redoing.sent(who, job)
    redoing.dispatcher.redo(1, "cut")
    ((again, late),) = redoing.fed()
    redoing.dispatcher.heard_applied(1)
    assert not redoing.dispatcher.all_applied
    redoing.sent(again, late)
    assert redoing.dispatcher.all_applied


def test_a_worker_that_is_replaced_before_the_destination_answers() -> None:
    """Jobs for a worker that is not connected yet, which vanish; or twice the credit."""
    redoing = Redoing()
    pool = RecordingPool(2)
    del pool.endpoints[1]
    dispatcher = Dispatcher(cast(Pool, pool), redoing._mark, FixedCodec(RAW))
    dispatcher.add_worker(0)
    dispatcher.open(3, 100)
    dispatcher.plan(batches(*range(20)), 20)
    dispatcher.feed()
    assert [worker for worker, _ in pool.told] == [0] * CREDIT


class Losing(RuleBasedStateMachine):
    """Workers that die, connections that are cut and frames that are damaged, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.redoing = Redoing(window=5)
        self.held: dict[int, list[ToWorker]] = {0: [], 1: []}
        self.arrived: set[int] = set()
        self.planned = 0
        self.number = 1

    @property
    def dispatcher(self) -> Dispatcher:
        """What is tested."""
        return self.redoing.dispatcher

    @rule(count=st.integers(1, 6))
    @precondition(lambda self: self.planned < 60)
    def plan(self, count: int) -> None:
        """More pages are dirty."""
        pages = range(self.planned, self.planned + count)
        self.planned += count
        self.dispatcher.plan(batches(*pages), count)

    @rule()
    def feed(self) -> None:
        """Give out what may be given out."""
        self.redoing.fed()
        for worker, job in self.redoing.pool.told:
            self.held[worker].append(job)
        assert all(len(jobs) <= CREDIT for jobs in self.held.values())

    @rule(data=st.data(), arrives=st.booleans())
    @precondition(lambda self: any(self.held.values()))
    def work(self, data: st.DataObject, arrives: bool) -> None:
        """A worker sends a frame, which arrives or gets lost; what is lost is told at once."""
        worker = data.draw(st.sampled_from([w for w, jobs in self.held.items() if jobs]))
        job = self.held[worker].pop(0)
        assert isinstance(job, SendJob)
        self.redoing.sent(worker, job)
        if arrives or job.attempt == REDOS:
            self.arrived.add(job.seq)
        else:
            self.dispatcher.redo(job.seq, "lost")

    @rule(data=st.data())
    @precondition(lambda self: self.number < 6)
    def die(self, data: st.DataObject) -> None:
        """A worker dies and another one takes its place."""
        worker = data.draw(st.sampled_from(sorted(self.held)))
        if any(isinstance(j, SendJob) and j.attempt == REDOS for j in self.held[worker]):
            return
        if any(out.attempt == REDOS for out in self.dispatcher._out.values()):
            return
        self.number += 1
        del self.held[worker]
        self.dispatcher.lose_worker(worker, "died")
        self.held[self.number] = []
        self.dispatcher.add_worker(self.number)

    @rule()
    def apply(self) -> None:
        """The destination applies what it has, in order."""
        furthest = self.dispatcher.applied
        while furthest + 1 in self.arrived:
            furthest += 1
        self.dispatcher.heard_applied(furthest)

    @invariant()
    def nothing_is_forgotten(self) -> None:
        """Whatever is out is in hand, waits to be redone, or has arrived."""
        held = {job.seq for jobs in self.held.values() for job in jobs if isinstance(job, SendJob)}
        out = set(range(self.dispatcher.applied + 1, self.dispatcher.last_seq + 1))
        assert out <= held | set(self.dispatcher._redo) | self.arrived
        assert self.dispatcher.pages_pending == self.planned - self.dispatcher.applied

    def teardown(self) -> None:
        """Left alone, everything arrives."""
        for _ in range(300):
            self.feed()
            for worker, jobs in self.held.items():
                while jobs:
                    job = jobs.pop(0)
                    assert isinstance(job, SendJob)
                    self.redoing.sent(worker, job)
                    self.arrived.add(job.seq)
            self.apply()
        assert self.dispatcher.all_applied
        assert self.dispatcher.all_sent


TestLosing = Losing.TestCase
TestLosing.settings = settings(deadline=None, max_examples=40, stateful_step_count=40)
