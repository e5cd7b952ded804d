"""The destination's ears: one poll over control connection and workers, and the clock's ticks.

Hands what the workers say to the intake and keeps what the source says until the receiver
looks. Decides nothing.
"""

import os
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from time import monotonic_ns

import structlog
import zmq

from pipeline.control_link import ControlLink
from pipeline.destination.acknowledgement import IDLE_MS, Acknowledgement
from pipeline.destination.intake import Intake
from pipeline.destination.turned_away import TurnedAwayWords
from pipeline.signals import Flag
from protocol import control as c
from protocol.errors import Cancelled, PeerLost, RemoteProtocolError
from protocol.limits import MAX_DEVICE_BYTES
from protocol.session import Stage
from workers.messages import TurnedAway

POLL_MS = 50
"""The longest wait; bounds how late a heartbeat, a cancel or a deadline is seen."""

CHECK_NS = 100_000_000
"""How often the workers are looked after."""

APPLYING = (Stage.MOVING, Stage.VERIFYING)
"""Where the session lets the destination acknowledge: the first frames of a round may be
here before the message that opens it."""


class IncomingPump:
    """Everything that comes in at the destination; owned by the receiver's thread."""

    def __init__(self, link: ControlLink, cancel: Flag, on_tick: Callable[[int], None]) -> None:
        self._link = link
        self._cancel = cancel
        self._on_tick = on_tick
        self._intake: Intake | None = None
        self._acknowledgement = Acknowledgement()
        self._checked_ns = 0
        self._poller = zmq.Poller()
        for socket in link.sockets:
            self._poller.register(socket, zmq.POLLIN)
        self._words = TurnedAwayWords()
        self.hello: c.Hello | None = None
        self.verify: c.Verify | None = None
        self.devices = bytearray()
        self.devices_complete = False
        self.committed = False
        self.on_round: Callable[[], None] = lambda: None
        self.settled = False
        """The source has on record whose the guest is: it will not ask."""

    def watch(self, intake: Intake) -> None:
        """From now on frames arrive: hear the workers, and notice when one ends."""
        self._intake = intake
        for source in (intake.pool.socket, intake.pool.ended):
            self._poller.register(source, zmq.POLLIN)

    def forget(self) -> None:
        """It is over: let go of the memory that frames arrived in."""
        self._intake = None

    def wait(self, until: Callable[[], bool]) -> None:
        """Turn until `until` holds; the errors of workers, peer and user come out here."""
        while not until():
            self._turn()

    def aside(self, work: Callable[[], None], give_up: Callable[[], None] = lambda: None) -> None:
        """Have `work` done by a thread of its own; the source hears from us all the while. Where
        something else ends it, `give_up` is called: it is waited for all the same."""
        done = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._poller.register(done, zmq.POLLIN)
        try:
            with ThreadPoolExecutor(1) as executor:
                future = executor.submit(work)
                future.add_done_callback(lambda _: os.eventfd_write(done, 1))
                try:
                    self.wait(future.done)
                except BaseException:
                    give_up()
                    raise
                future.result()
        finally:
            self._poller.unregister(done)
            os.close(done)

    def _turn(self) -> None:
        intake, wait_ms = self._intake, POLL_MS
        if intake is not None and not self.committed:
            intake.ask_idle()
            pending = self._acknowledgement.is_pending(intake.reassembly.applied)
            wait_ms = IDLE_MS if pending and self._is_applying else POLL_MS
        ready = dict(self._poller.poll(wait_ms))
        if intake is not None and not self.committed:
            self._hear_workers(intake, ready)
            self._acknowledge(intake, idle=not ready)
        if self._link.is_in(ready):
            self._hear_link()
        self._tick()

    def hear_and_tick(self) -> None:
        """What must go on while the pool starts, however long that takes."""
        self._hear_link()
        self._tick()

    def _hear_link(self) -> None:
        for message in self._link.receive():
            self._hear_peer(message)
            self._tick()
        self._tell(self._link.turned_away)

    def _hear_workers(self, intake: Intake, ready: Mapping[object, int]) -> None:
        with intake.pool.together():
            for worker, message in intake.pool.receive():
                intake.hear(worker, message)
        self._tell(intake.turned_away)
        now_ns = monotonic_ns()
        if intake.pool.ended in ready or now_ns - self._checked_ns >= CHECK_NS:
            self._checked_ns = now_ns
            intake.check_workers(now_ns, lambda: self._link.beat(monotonic_ns()))

    def _tell(self, turned_away: deque[TurnedAway]) -> None:
        """Log who was not let in."""
        while turned_away:
            words = self._words.maybe_words(turned_away.popleft(), monotonic_ns())
            if words is not None:
                structlog.get_logger().warning(words)

    def _tick(self) -> None:
        now_ns = monotonic_ns()
        self._link.tick(now_ns)
        self._on_tick(now_ns)
        if self._cancel.is_set() and not self.committed:
            raise Cancelled("cancelled at the destination")

    @property
    def _is_applying(self) -> bool:
        return self._link.session.stage in APPLYING

    def _acknowledge(self, intake: Intake, *, idle: bool) -> None:
        """Tell the source how far memory is: every few frames, or when nothing more comes."""
        now_ns, applied = monotonic_ns(), intake.reassembly.applied
        due = self._acknowledgement.is_due(applied, now_ns, idle=idle)
        if not self._is_applying:
            return
        while intake.unsaid:
            self._link.send(intake.unsaid.popleft())
        if due:
            self._acknowledgement.told(applied, now_ns)
            self._link.send(intake.applied())

    def _hear_peer(self, message: c.AnyMessage) -> None:
        match message:
            case c.Hello():
                self.hello = message
            case c.Holes():
                assert self._intake is not None, "the session lets no holes in before"
                self._intake.clear(message)
            case c.RoundStart():
                assert self._intake is not None, "the session lets no round begin before"
                self._intake.start_round(message)
                self.on_round()
            case c.Verify():
                self.verify = message
            case c.Devices(data=data, last=last):
                self._take_devices(data, last=last)
            case c.Commit():
                self._commit()
            case c.Settled():
                self.settled = True
                self._link.send(c.Alive())  # so that it need not be repeated
            case c.Cancel(reason=reason, failed=failed):
                self.settled = True
                raise PeerLost(f"the source failed: {reason}") if failed else Cancelled(reason)

    def _commit(self) -> None:
        """Neither a cancel nor a worker's end decides any more, now that the guest is ours."""
        if self._intake is not None:
            for source in (self._intake.pool.socket, self._intake.pool.ended):
                self._poller.unregister(source)
        self.committed = True

    def _take_devices(self, data: bytes, *, last: bool) -> None:
        if len(self.devices) + len(data) > MAX_DEVICE_BYTES:
            raise RemoteProtocolError(f"more than {MAX_DEVICE_BYTES} bytes of device state")
        self.devices += data
        self.devices_complete = last
