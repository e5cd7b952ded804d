"""The destination's driver: takes one guest in and starts it when it is told to.

Does the steps in their order; what may be said now is the session's business, what
is in order the reassembly's, whether memory is right the read-back's.
"""

from collections.abc import Callable
from contextlib import suppress
from time import monotonic_ns

from pipeline.config.model import Config
from pipeline.destination.arriving_disks import Made
from pipeline.destination.custody import Custody
from pipeline.destination.engine import IncomingEngine
from pipeline.guests.base import ArrivingGuest
from pipeline.logs import log_if_unexpected
from pipeline.progress import and_every_so_often
from pipeline.records.store import SessionRecord
from pipeline.signals import Flag
from protocol import control as c
from protocol.devices import GLOBAL_STATE, decode_global_state, decode_sections
from protocol.errors import Cancelled, MigrationError
from protocol.limits import PAGES_A_MESSAGE, REASON_CHARS
from protocol.session import Stage
from protocol.status import FINISHED, Status, StatusMachine
from protocol.uri import Uri
from workers.keys import ServerKeys


class Receiver:
    """One migration at its destination; owned by the thread that calls `receive`.

    `config` is asked at each step: it may change before. `make_guest` and `make_disks` are for the
    custody, `on_guest` hears when the guest was let run. `error` is why it failed, None when it did
    not. ConfigError from the constructor where `uri` cannot be listened at.
    """

    def __init__(
        self,
        uri: Uri,
        config: Callable[[], Config],
        make_guest: Callable[[c.Hello, SessionRecord], ArrivingGuest],
        status: StatusMachine,
        *,
        make_disks: Made = lambda *_: [],
        cancel: Flag | None = None,
        on_guest: Callable[[bool], None] = lambda _: None,
        on_tick: Callable[[int], None] = lambda _: None,
        keys: ServerKeys | None = None,
    ) -> None:
        self._config = config
        self._status = status
        self._run_state = "running"
        self._on_guest = on_guest
        self.cancel = cancel or Flag()
        self.custody = Custody(make_guest, make_disks)
        tick = and_every_so_often(on_tick, self.custody.check)
        self.engine = IncomingEngine(uri, self.cancel, tick, keys)
        self.engine.pump.on_round = self.custody.flush_soon
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
            self.custody.announce()
            self._part()
        except Exception as error:  # whatever it is, the other end has to hear of it
            log_if_unexpected(error)
            self._fail(error)
        finally:
            self.engine.close()
            self.custody.close(settled=self.engine.pump.settled)

    def _prepare(self) -> None:
        engine, custody = self.engine, self.custody
        engine.pump.wait(lambda: engine.pump.hello is not None)
        hello = engine.pump.hello
        assert hello is not None
        parameters = self._config().parameters
        sockets = engine.socket_paths(parameters)
        custody.open(hello.name, engine.link.session_id, sockets)
        engine.pump.aside(lambda: custody.make(hello), custody.abandon)
        assert custody.guest is not None
        engine.prepare(hello, custody.guest.blocks, custody.disks, parameters)

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
        pump, link, intake = self.engine.pump, self.engine.link, self.engine.intake
        assert intake is not None, "prepared before memory is taken"
        pump.wait(lambda: intake.reassembly.applied >= question.last_seq)
        intake.compare(question.digests)
        pump.wait(lambda: intake.all_compared)
        wrong = intake.mismatches()
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
        guest, state = self.custody.guest, [s for s in sections if s.name != GLOBAL_STATE]
        assert guest is not None
        pump.aside(lambda: guest.load_devices(state))
        pump.aside(self.custody.flush)
        self.custody.ready()
        link.await_commit(self._config().commit_timeout)
        link.send(c.Ready(load_ms=(monotonic_ns() - began) / 1e6))

    def _start(self) -> None:
        """Wait for the commit, then start: never without it, never twice."""
        engine = self.engine
        engine.pump.wait(lambda: engine.pump.committed)
        run = self._config().autostart and self._run_state == "running"
        engine.link.send(self.custody.begin(run=run))
        if self.custody.runs_here:
            self._on_guest(True)

    @property
    def stopped_state(self) -> str:
        """The run state of a guest that arrived and does not run."""
        return "paused" if self._run_state == "running" else self._run_state

    def _part(self) -> None:
        """Let the source hear that the guest runs, and answer it as long as it may ask; the
        guest runs here, whatever comes of that."""
        patience_ns = int(self._config().commit_timeout * 1e9)
        pump, deadline = self.engine.pump, monotonic_ns() + patience_ns
        with suppress(MigrationError):
            pump.wait(lambda: pump.settled or monotonic_ns() > deadline)

    def _fail(self, error: Exception) -> None:
        cancelled = isinstance(error, Cancelled)
        self.error = str(error) if cancelled else f"load of migration failed: {error}"
        reason = str(error)[:REASON_CHARS]
        link = self.engine.link
        if self.custody.refuse(reason) and link.session.stage is Stage.COMMITTED:
            link.send(c.NotStarted(reason=reason))
        link.end(c.Failed(reason=reason, cancelled=cancelled))
        if self._status.status not in FINISHED:
            end = Status.CANCELLED if cancelled else Status.FAILED
            self._status.change(self._status.status, end)
