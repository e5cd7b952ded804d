"""Hands batches and scans to the compress workers, within their credit and the window.

A batch is this end's responsibility from the moment it gets its seq until the destination
says that it is applied; what is in between is in `_out`. What gets lost there is given out
anew under the same seq, by a higher attempt, once nobody has it in hand any more.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from pipeline.source.codec_choice import Choice, Codecs
from pipeline.source.dirty import Planned
from pipeline.source.scans import Scans
from protocol.errors import RemoteProtocolError
from protocol.limits import REDOS
from workers.messages import ScanJob, Scanned, SendJob, Sent, Unsent
from workers.pages import Pages
from workers.pool import Pool

CREDIT = 6
"""Jobs that a worker may hold: it has some at hand while it tells of those that are done."""


@dataclass
class Out:
    """A batch that has its seq and is not applied; `again`: why it is to be redone."""

    batch: Planned
    round_no: int
    final: bool
    worker: int
    lane: int
    choice: Choice
    attempt: int = 0
    wire_bytes: int = 0
    sent: bool = False
    again: str = ""


class Dispatcher:
    """The jobs that wait, that are at the workers, and that are on their way.

    `on_redo` gets the block and pages of each batch that is redone while the guest may go on
    writing: they have to stand in the next round, too.
    """

    def __init__(self, pool: Pool, on_redo: Callable[[int, Pages], None], codecs: Codecs) -> None:
        self._pool = pool
        self._on_redo = on_redo
        self.codecs = codecs
        self._lanes = self._window = 0
        self._credit: deque[int] = deque()
        self._planned: deque[Iterator[Planned]] = deque()
        self._next_batch: Planned | None = None
        self._out: dict[int, Out] = {}
        self._redo: deque[int] = deque()
        self._in_hand: dict[tuple[int, int], tuple[int, Planned]] = {}
        """(seq, attempt) of a job → the worker that has it, and its batch."""
        self.cache_slots = 0
        self.scans = Scans()
        self._retired: set[int] = set()
        self.round_no = 0
        self.final = False
        self.last_seq = 0
        self.applied = 0
        self.applied_wire_bytes = 0
        self.pages_pending = 0
        self.redone = 0
        self.given_up: tuple[int, str] | None = None
        """The seq that did not arrive, however often it was redone, and why."""

    def open(self, lanes: int, window: int) -> None:
        """From now on: `lanes` decompress workers to send to, `window` frames out at most."""
        self._lanes, self._window = lanes, window
        self._credit.extend(worker for _ in range(CREDIT) for worker in self._pool.endpoints)

    def add_worker(self, worker: int) -> None:
        """A worker is up that was not there at `open`; before that is soon enough."""
        for _ in range(CREDIT if self._lanes else 0):
            self._give_credit(worker)

    def _give_credit(self, worker: int) -> None:
        if worker not in self._retired:
            self._credit.append(worker)

    def retire(self, worker: int) -> None:
        """Give a worker no more work."""
        self._retired.add(worker)
        self._credit = deque(one for one in self._credit if one != worker)

    def is_done_with(self, worker: int) -> bool:
        """Whether a worker has nothing in hand, and all that it has sent is applied."""
        at_work = any(at == worker for at, _ in self._in_hand.values())
        on_the_way = any(out.worker == worker for out in self._out.values())
        return not (at_work or on_the_way or self.scans.held_by(worker))

    def forget(self, worker: int) -> None:
        """A worker that was retired has ended."""
        self._retired.discard(worker)

    def start_round(self, cache_slots: int = 0) -> None:
        """What is planned from now on belongs to the next round; `cache_slots` of the cache of sent
        pages are in use for it, 0 without one."""
        self.round_no += 1
        self.cache_slots = cache_slots

    def plan(self, batches: Iterable[Planned], pages: int) -> None:
        """Give out `batches`, of `pages` in all, after those planned before; cut lazily."""
        self.pages_pending += pages
        self._planned.append(iter(batches))
        if self._next_batch is None:
            self._take_next()

    def feed(self) -> None:
        """Give out what credit and window allow: what is redone, then batches, then scans."""
        with self._pool.together():
            while self._credit and self._give_one():
                pass

    def _give_one(self) -> bool:
        """False where there is nothing to give."""
        if self._redo:
            self._give_again(self._redo.popleft())
        elif self._next_batch is not None and self.last_seq - self.applied < self._window:
            self._give_new(self._next_batch)
            self._take_next()
        elif self.scans.are_waiting:
            worker = self._credit.popleft()
            self._pool.send(worker, self.scans.give(worker))
        else:
            return False
        return True

    def _take_next(self) -> None:
        self._next_batch = None
        while self._planned and self._next_batch is None:
            self._next_batch = next(self._planned[0], None)
            if self._next_batch is None:
                self._planned.popleft()

    def _give_new(self, batch: Planned) -> None:
        self.last_seq += 1
        lane, choice = self.last_seq % self._lanes, self.codecs.choose(batch[0])
        out = Out(batch, self.round_no, self.final, self._credit.popleft(), lane, choice)
        self._out[self.last_seq] = out
        self._send(self.last_seq, out)

    def _give_again(self, seq: int) -> None:
        """By the next lane, whatever was wrong with the last; nothing, if it is applied by now."""
        out = self._out.get(seq)
        if out is not None:
            out.worker, out.sent = self._credit.popleft(), False
            out.lane = (out.lane + 1) % self._lanes
            self._send(seq, out)

    def _send(self, seq: int, out: Out) -> None:
        block, pages = out.batch
        self._in_hand[seq, out.attempt] = (out.worker, out.batch)
        job = SendJob(
            seq=seq,
            attempt=out.attempt,
            round_no=out.round_no,
            block=block,
            lane=out.lane,
            final=out.final,
            codec=out.choice.codec,
            level=out.choice.level,
            cache_slots=self.cache_slots,
            pages=pages.tobytes(),
        )
        self._pool.send(out.worker, job)

    def heard_sent(self, worker: int, message: Sent) -> Planned:
        """A worker's frame is out: it has credit again. The batch."""
        self._give_credit(worker)
        _, batch = self._in_hand.pop((message.seq, message.attempt))
        out = self._out.get(message.seq)
        if out is not None:
            out.sent, out.wire_bytes = True, message.wire_bytes
            self.codecs.heard(out.batch[0], out.choice, message)
            if out.again:
                self.redo(message.seq, out.again)
        return batch

    def heard_unsent(self, worker: int, message: Unsent) -> None:
        """A worker could not get its frame out: it has credit again, the frame is redone."""
        self._give_credit(worker)
        self._in_hand.pop((message.seq, message.attempt))
        self.redo(message.seq, message.reason)

    def heard_scanned(self, worker: int, message: Scanned) -> tuple[ScanJob, Pages]:
        """A scan is done: the job and the pages that differ."""
        self._give_credit(worker)
        return self.scans.heard(message.job), np.frombuffer(message.pages, np.uint32)

    def heard_applied(self, seq: int) -> list[Planned]:
        """Everything up to `seq` is in the destination's memory; the batches that this adds.

        RemoteProtocolError for what was never given out or goes backwards.
        """
        if not self.applied <= seq <= self.last_seq:
            raise RemoteProtocolError(
                f"applied {seq}, after {self.applied}; {self.last_seq} is the last given out"
            )
        done = [self._out.pop(one) for one in range(self.applied + 1, seq + 1)]
        self.applied_wire_bytes += sum(out.wire_bytes for out in done)
        self.applied = seq
        self.pages_pending -= sum(len(out.batch[1]) for out in done)
        if self.given_up is not None and self.given_up[0] <= seq:
            self.given_up = None  # it has arrived after all
        return [out.batch for out in done]

    def redo(self, seq: int, why: str) -> None:
        """Give out `seq` anew, once nobody has it in hand; nothing, where it is not out.

        When that was done REDOS times already, it is given up.
        """
        out = self._out.get(seq)
        if out is None or seq in self._redo:
            return
        if (seq, out.attempt) in self._in_hand:
            out.again = why
            return
        if out.attempt == REDOS:
            self.given_up = (seq, f"frame {seq} did not arrive, redone {REDOS} times: {why}")
            return
        out.attempt, out.again = out.attempt + 1, ""
        self.redone += 1
        self._redo.append(seq)
        if not out.final:
            self._on_redo(*out.batch)

    def task_of(self, worker: int) -> str:
        """What a worker is doing, in words: it does its jobs in their order."""
        frames = [seq for (seq, _), (at, _) in self._in_hand.items() if at == worker]
        scans = self.scans.held_by(worker)[:1]
        tasks = [f"frame {seq} of round {self.round_no}" for seq in frames[:1]]
        tasks += [f"the scan of block {job.block} from page {job.first} on" for job in scans]
        return f"with {' and '.join(tasks) or 'nothing'} in hand"

    def lose_worker(self, worker: int, why: str) -> None:
        """A worker is dead: what it had in hand, or sent and was not applied, is lost."""
        self._credit = deque(one for one in self._credit if one != worker)
        self._in_hand = {job: at for job, at in self._in_hand.items() if at[0] != worker}
        self.scans.lose_worker(worker)
        for seq in [seq for seq, out in self._out.items() if out.worker == worker]:
            self.redo(seq, why)

    def lose_lane(self, worker: int, lane: int, why: str) -> None:
        """What a worker has sent over a connection, and is not applied, is lost."""
        for seq, out in list(self._out.items()):
            if out.sent and (out.worker, out.lane) == (worker, lane):
                self.redo(seq, why)

    @property
    def head(self) -> Out | None:
        """The batch that all others wait for, if one is out."""
        return self._out.get(self.applied + 1)

    @property
    def is_waiting(self) -> bool:
        """Whether batches are out."""
        return bool(self._out)

    @property
    def pages_out(self) -> int:
        """Pages that are given out and not applied."""
        return sum(len(out.batch[1]) for out in self._out.values())

    @property
    def all_given(self) -> bool:
        """Whether no batch waits to be given out."""
        return self._next_batch is None

    @property
    def all_sent(self) -> bool:
        """Whether every batch has left its worker, so that the hash table is final."""
        return self.all_given and not self._in_hand and not self._redo

    @property
    def all_applied(self) -> bool:
        """Whether the destination holds everything, and no worker has a late copy of anything
        in hand, which would write its old hashes: the fence between two rounds."""
        return self.all_sent and self.applied == self.last_seq
