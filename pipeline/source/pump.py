"""The source's ears: one poll over control connection and workers, and the clock's ticks.

Hands what it hears to the dispatcher, the statistics and the dirty map; keeps the
peer's answers until somebody expects them. Decides nothing.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from time import monotonic_ns
from typing import TypeVar

import numpy as np
import zmq

from pipeline.control_link import ControlLink
from pipeline.liveness import Stalls
from pipeline.signals import Flag
from pipeline.source.codec_choice import Codecs, Totals
from pipeline.source.dispatcher import Dispatcher
from pipeline.source.recovery import Recovery
from pipeline.source.rounds import Windows
from pipeline.source.staffing import Staffing
from pipeline.source.statistics import SourceStatistics
from protocol import control as c
from protocol.errors import (
    Cancelled,
    LocalProtocolError,
    NotStartedThere,
    PeerLost,
)
from protocol.limits import PAGE_BYTES
from workers.messages import Cut, FromWorker, Scanned, Sent, Unsent, Up
from workers.pages import Pages
from workers.pool import Pool

POLL_MS = 50
"""The longest wait; bounds how late a tick, a cancel or a deadline is seen."""

CHECK_NS = 100_000_000
"""How often workers and progress are looked after."""

Answer = TypeVar("Answer", bound=c.Message)
Made = TypeVar("Made")


class SourcePump:
    """Everything that comes in at the source; owned by the coordinator's thread."""

    def __init__(
        self,
        link: ControlLink,
        pool: Pool,
        dispatcher: Dispatcher,
        recovery: Recovery,
        statistics: SourceStatistics,
        cancel: Flag,
        on_tick: Callable[[int], None],
        disks_from: int,
    ) -> None:
        self._disks_from = disks_from
        self._link = link
        self._pool = pool
        self._dispatcher = dispatcher
        self._recovery = recovery
        self._statistics = statistics
        self._cancel = cancel
        self._on_tick = on_tick
        self._answers: dict[type[c.Message], c.Message] = {}
        self.windows = Windows(monotonic_ns())
        self.cancellable = True
        self._watching = False
        self._checked_ns = 0
        self.on_found: Callable[[int, Pages], None] = _nobody_asked
        self.mismatches: list[tuple[int, Pages]] = []
        self._poller = zmq.Poller()
        for socket in (*link.sockets, pool.socket):
            self._poller.register(socket, zmq.POLLIN)

    def watch_workers(self) -> None:
        """Wake up when a worker ends, too."""
        self._watching = True
        self._poller.register(self._pool.ended, zmq.POLLIN)

    def commit(self) -> None:
        """From here on only the destination's answer decides: no cancel, no worker's end."""
        self.cancellable = self._watching = False
        for source in (self._pool.socket, self._pool.ended):
            self._poller.unregister(source)

    def expect(self, answer: type[Answer], within_s: float) -> Answer:
        """Wait for the peer's `answer`; PeerLost when it does not come in time.

        The time in which this end stood still does not count: the answer may be here.
        """
        now_ns = monotonic_ns()
        deadline_ns, stalls = now_ns + int(within_s * 1e9), Stalls(now_ns)
        while answer not in self._answers:
            now_ns = monotonic_ns()
            deadline_ns += stalls.stood_still_ns(now_ns)
            if now_ns > deadline_ns:
                raise PeerLost(
                    f"the destination did not say {answer.__name__} within {within_s:g} s"
                )
            self.turn()
        found = self._answers.pop(answer)
        assert isinstance(found, answer)
        return found

    def wait(self, until: Callable[[], bool]) -> None:
        """Turn until `until` holds; the errors of workers, peer and user come out here."""
        while not until():
            self.turn()

    def aside(self, work: Callable[[], Made]) -> Made:
        """What `work` returns, done by a thread of its own; the destination hears from us all the
        while, and nobody else does."""
        with ThreadPoolExecutor(1) as executor:
            future = executor.submit(work)
            while not wait([future], POLL_MS / 1000).done:
                self._beat()
            return future.result()

    def turn(self) -> None:
        """Give out what can be given out, wait for a moment, take in what has come."""
        self._dispatcher.feed()
        ready = dict(self._poller.poll(POLL_MS))
        if self.cancellable:
            for worker, message in self._pool.receive():
                self._hear_worker(worker, message)
        if self._link.is_in(ready):
            self._hear_link()
        if self._pool.ended in ready:
            self._checked_ns = 0  # look after them now
        self._tick()

    def before_anything_is_said(self) -> None:
        """What must go on then: observer, a cancel."""
        self._on_tick(monotonic_ns())
        if self._cancel.is_set():
            raise Cancelled("cancelled")

    def hear_and_tick(self) -> None:
        """What must go on while the pool starts, however long that takes."""
        self._hear_link()
        self._tick()

    def _hear_link(self) -> None:
        for message in self._link.receive():
            self._hear_peer(message)

    def _tick(self) -> None:
        """What is due by the clock: heartbeat, window, observer, a cancel."""
        now_ns = monotonic_ns()
        self._link.tick(now_ns)
        self.windows.tick(now_ns, waiting=self._dispatcher.is_waiting)
        if self._watching and now_ns - self._checked_ns >= CHECK_NS:
            self._checked_ns = now_ns
            self._recovery.check_workers(now_ns, self._beat)
            self._recovery.check_progress(now_ns, self.windows.bandwidth)
            self._recovery.check_given_up(now_ns, self._link.heard_ns)
        self._on_tick(now_ns)
        if self._cancel.is_set() and self.cancellable:
            raise Cancelled("cancelled")

    def _beat(self) -> None:
        """What must go on while a worker is started, or a guest stopped, and nobody is heard."""
        self._link.beat(monotonic_ns())

    def _hear_worker(self, worker: int, message: FromWorker) -> None:
        match message:
            case Sent():
                block, pages = self._dispatcher.heard_sent(worker, message)
                of_disk = block >= self._disks_from
                self._statistics.add_sent(message, len(pages), of_disk=of_disk)
                self.windows.add(wire_bytes=message.wire_bytes)
            case Unsent():
                self._dispatcher.heard_unsent(worker, message)
            case Scanned():
                job, pages_found = self._dispatcher.heard_scanned(worker, message)
                self._statistics.add_scanned(message, job.count)
                self.on_found(job.block, pages_found)
            case Cut(lane):
                self._recovery.heard_cut(worker, lane)
            case Up():
                self._recovery.take_on(worker)
            case _:
                raise TypeError(f"not from a compress worker: {message}")

    def _hear_peer(self, message: c.AnyMessage) -> None:
        match message:
            case c.Applied():
                self._hear_applied(message)
            case c.Mismatch(block=block, pages=pages):
                self.mismatches.append((block, np.frombuffer(pages, "<u4").astype(np.uint32)))
            case c.Redo(seq=seq, reason=reason):
                self._dispatcher.redo(seq, reason)
            case c.Endpoint():
                self._recovery.move(message)
            case c.Failed(reason=reason) if not self.cancellable:
                raise NotStartedThere(f"the destination failed before the commit: {reason}")
            case c.Failed(reason=reason, cancelled=True):
                raise Cancelled(reason)
            case c.Failed(reason=reason):
                raise PeerLost(f"the destination failed: {reason}")
            case c.NotStarted(reason=reason):
                raise NotStartedThere(f"the destination did not start the guest: {reason}")
            case c.Alive():
                pass
            case _:
                self._answers[type(message)] = message

    def _hear_applied(self, message: c.Applied) -> None:
        done = self._dispatcher.heard_applied(message.seq)
        all_pages = sum(len(pages) for _, pages in done)
        disk_pages = sum(len(pages) for block, pages in done if block >= self._disks_from)
        self.windows.add(applied_bytes=all_pages * PAGE_BYTES)
        self._statistics.add_applied(message, all_pages - disk_pages, disk_pages)
        self._tell_who_decides(monotonic_ns())

    def _tell_who_decides(self, now_ns: int) -> None:
        """How far all is, to what chooses codecs and the number of workers."""
        staffing = self._recovery.staff.staffing
        told: list[Codecs | Staffing] = [self._dispatcher.codecs, *([staffing] if staffing else [])]
        rests, totals = self._dispatcher.all_given, self._totals()
        for one in told:
            if rests:
                one.rest()
            else:
                one.tick(now_ns, totals)

    def _totals(self) -> Totals:
        statistics = self._statistics
        return Totals(
            applied_bytes=statistics.all_applied_pages * PAGE_BYTES,
            wire_bytes=self._dispatcher.applied_wire_bytes,
            busy=statistics.busy,
            workers=len(self._recovery.staff.working),
            lanes=statistics.lanes,
        )


def _nobody_asked(block: int, pages: Pages) -> None:
    raise LocalProtocolError(
        f"{len(pages)} pages of block {block} found by a scan nobody asked for"
    )
