"""The destination's driver: takes one guest in and starts it when it is told to.

Does the steps in their order; what may be said now is the session's business, what
is in order the reassembly's, whether memory is right the read-back's.
"""

from collections.abc import Callable
from contextlib import suppress
from threading import Event
from time import monotonic_ns

import structlog

from pipeline.config.model import Parameters
from pipeline.destination.engine import IncomingEngine
from pipeline.guests.base import ArrivingGuest
from pipeline.leftovers.settling import undo_effects
from pipeline.records.processes import this_process
from pipeline.records.record import BoundSockets, Record
from pipeline.records.store import SessionRecord, create_record
from pipeline.shell.logs import log_if_unexpected
from protocol import control as c
from protocol.commit import DestinationCommit
from protocol.devices import GLOBAL_STATE, decode_global_state, decode_sections
from protocol.errors import Cancelled, GuestError, MigrationError
from protocol.limits import PAGES_A_MESSAGE, REASON_CHARS
from protocol.session import Stage
from protocol.status import FINISHED, Status, StatusMachine
from protocol.uri import Uri
from workers.keys import ServerKeys


class Receiver:
    """One migration at its destination; owned by the thread that calls `receive`.

    `make_guest` makes the guest that the source's hello describes; it is the caller's, who also
    closes it. What that does to others it adds to the record. `error` is why it failed, None when
    it did not. ConfigError from the constructor where `uri` cannot be listened at.
    """

    def __init__(
        self,
        uri: Uri,
        parameters: Parameters,
        make_guest: Callable[[c.Hello, SessionRecord], ArrivingGuest],
        status: StatusMachine,
        *,
        autostart: bool,
        commit_timeout_s: float,
        on_tick: Callable[[int], None] = lambda _: None,
        keys: ServerKeys | None = None,
    ) -> None:
        self._parameters = parameters
        self._make_guest = make_guest
        self._status = status
        self._autostart = autostart
        self._commit_timeout_s = commit_timeout_s
        self._run_state = "running"
        self.cancel = Event()
        self.engine = IncomingEngine(uri, self.cancel, on_tick, keys)
        self.guest: ArrivingGuest | None = None
        self._record: SessionRecord | None = None
        self._commit: DestinationCommit | None = None
        self._was_ready = False
        self.begun = False
        """Whether the guest was asked to start, and is not known to be dead."""
        self.runs_here = False
        self.error: str | None = None

    def receive(self) -> None:
        """Take the guest in. How it ended is in the status; errors are in `error`."""
        self._status.change(Status.NONE, Status.SETUP)
        try:
            self._prepare()
            self._status.change(Status.SETUP, Status.ACTIVE)
            self._take_memory()
            self._load()
            self._start()
            self._status.change(Status.ACTIVE, Status.COMPLETED)
            self._part()
        except Exception as error:  # whatever it is, the other end has to hear of it
            log_if_unexpected(error)
            self._fail(error)
        finally:
            self.engine.close()
            self._close_record()

    def _prepare(self) -> None:
        pump = self.engine.pump
        pump.wait(lambda: pump.hello is not None)
        hello = pump.hello
        assert hello is not None
        record = self._put_on_record(hello)
        pump.aside(lambda: self._make(hello, record))
        assert self.guest is not None
        self.engine.prepare(hello, self.guest.blocks, self._parameters)

    def _put_on_record(self, hello: c.Hello) -> SessionRecord:
        session = self.engine.link.session_id.hex()
        first = Record(
            session=session,
            role="destination",
            name=hello.name,
            owner=this_process(),
            effects=(BoundSockets(self.engine.socket_paths(self._parameters)),),
        )
        self._record = create_record(first)
        self._commit = DestinationCommit(self._record)
        return self._record

    def _make(self, hello: c.Hello, record: SessionRecord) -> None:
        self.guest = self._make_guest(hello, record)

    def _take_memory(self) -> None:
        """Let frames land, and answer each question whether all is right, until devices come."""
        pump = self.engine.pump
        while True:
            pump.wait(lambda: pump.verify is not None or bool(pump.devices))
            if pump.verify is None:
                return
            question, pump.verify = pump.verify, None
            self._verify(question)

    def _verify(self, question: c.Verify) -> None:
        """Compare all memory with what was sent, and tell the source which pages differ."""
        pump, link, arrival = self.engine.pump, self.engine.link, self.engine.arrival
        assert arrival is not None, "prepared before memory is taken"
        pump.wait(lambda: arrival.reassembly.applied >= question.last_seq)
        arrival.compare(question.digests)
        pump.wait(lambda: arrival.all_compared)
        wrong = arrival.mismatches()
        for block, pages in wrong:
            for start in range(0, len(pages), PAGES_A_MESSAGE):
                piece = pages[start : start + PAGES_A_MESSAGE].astype("<u4").tobytes()
                link.send(c.Mismatch(block=block, pages=piece))
        link.send(c.Verified(mismatches=sum(len(pages) for _, pages in wrong)))

    def _load(self) -> None:
        pump, link = self.engine.pump, self.engine.link
        pump.wait(lambda: pump.devices_complete)
        began = monotonic_ns()
        sections = decode_sections(bytes(pump.devices))
        for section in sections:
            if section.name == GLOBAL_STATE:
                self._run_state = decode_global_state(section)
        guest, state = self.guest, [s for s in sections if s.name != GLOBAL_STATE]
        assert guest is not None
        pump.aside(lambda: guest.load_devices(state))
        assert self._commit is not None
        if not self._commit.get_ready():
            raise MigrationError("the record of this session was closed")
        self._was_ready = True
        link.await_commit(self._commit_timeout_s)
        link.send(c.Ready(load_ms=(monotonic_ns() - began) / 1e6))

    def _start(self) -> None:
        """Wait for the commit, then start: never without it, never twice."""
        engine, commit = self.engine, self._commit
        assert commit is not None
        engine.pump.wait(lambda: engine.pump.committed)
        began = monotonic_ns()
        if not commit.heard_commit():
            raise MigrationError("the record of this session was closed")
        self._begin()
        try:
            commit.started((monotonic_ns() - began) / 1e6, running=self.runs_here)
        except MigrationError as error:
            structlog.get_logger().warning(f"{error}; the guest runs here")
        assert commit.answer is not None
        engine.link.send(commit.answer)

    def _begin(self) -> None:
        """Start the guest; one that does not start is ended where it is ours, so that it
        certainly does not run."""
        assert self.guest is not None
        self.begun = True
        try:
            run = self._autostart and self._run_state == "running"
            self.runs_here = self.guest.begin(self.engine.link.session_id.hex(), run=run)
        except GuestError:
            self.guest.close()
            self.begun = not self.guest.is_dead()
            raise

    def _part(self) -> None:
        """Let the source hear that the guest runs, and answer it as long as it may ask; the
        guest runs here, whatever comes of that."""
        pump, deadline = self.engine.pump, monotonic_ns() + int(self._commit_timeout_s * 1e9)
        with suppress(MigrationError):
            pump.wait(lambda: pump.settled or monotonic_ns() > deadline)

    def _refuse(self, reason: str) -> None:
        """The guest was never asked to start, or is dead: keep that, and answer it."""
        if self._commit is None or self.begun:
            return
        with suppress(MigrationError):  # it is true all the same
            self._commit.refuse(reason)
        if self.engine.link.session.stage is Stage.COMMITTED:
            self.engine.link.send(c.NotStarted(reason=reason))

    def _close_record(self) -> None:
        """Undo what a guest that did not come has cost; forget the session, unless the source
        may have to ask."""
        if self._record is None:
            return
        if not self.begun:
            with suppress(MigrationError):  # a disk that is full
                undo_effects(self._record)
        if self.engine.pump.settled or not self._was_ready:
            self._record.remove()
        self._record.close()

    def _fail(self, error: Exception) -> None:
        cancelled = isinstance(error, Cancelled)
        self.error = str(error) if cancelled else f"load of migration failed: {error}"
        reason = str(error)[:REASON_CHARS]
        self._refuse(reason)
        self.engine.link.end(c.Failed(reason=reason, cancelled=cancelled))
        if self._status.status not in FINISHED:
            end = Status.CANCELLED if cancelled else Status.FAILED
            self._status.change(self._status.status, end)
