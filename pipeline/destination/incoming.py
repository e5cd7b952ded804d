"""The arrival of one guest here: what may be set before it comes, and what it does afterwards."""

from collections.abc import Callable
from contextlib import ExitStack
from time import monotonic, sleep

import structlog

from pipeline.config.adjustable import Adjustable
from pipeline.config.links import check_host, server_keys, warn_without_keys
from pipeline.config.model import Config
from pipeline.destination.arriving_disks import disk_maker
from pipeline.destination.arriving_guest import check_guest, guest_maker
from pipeline.destination.receiver import Receiver
from pipeline.destination.report import progress_of, result_of
from pipeline.guests.base import ArrivingGuest
from pipeline.progress import Observer, every_so_often
from pipeline.result import Result
from pipeline.signals import Flag
from pipeline.streams.way import Way, way_to
from pipeline.timeline import Timeline
from protocol.errors import ConfigError, GuestError
from protocol.status import INCOMING_TRANSITIONS, Status, StatusMachine
from protocol.uri import Uri, uri_of

IDLE_SECONDS = 0.2


class Incoming:
    """Owned by the thread that calls `receive`; `close` ends the guest, where it is ours.

    `watch` is called at every tick, and while the way ends or the guest checks itself; `on_guest`
    when the guest is let run (True) or stopped; `idle` waits for some seconds at most, and may do
    what is asked meanwhile.
    """

    def __init__(self, config: Config, observer: Observer) -> None:
        self.settings = Adjustable(config, None)
        self.status = StatusMachine(INCOMING_TRANSITIONS)
        self.cancel = Flag()
        self._is_waiting = False
        self.is_stream = False
        """Whether nobody may connect to where it waits."""
        self.receiver: Receiver | None = None
        self.watch: Callable[[], None] = lambda: None
        self.idle: Callable[[float], object] = sleep
        self.on_guest: Callable[[bool], None] = lambda _: None
        self._observer = observer
        self._way: Way | None = None
        self._is_checked = False
        self._told: bool | None = None
        """Whether the guest that is here was told last to run; None where it was told nothing."""
        self._opened = ExitStack()
        self._timeline = Timeline(self.status)
        self._show = every_so_often(self._tell)
        self.status.notify(lambda _: self._tell())

    def listen(self, uri: Uri) -> None:
        """Wait for a source at `uri`; ConfigError where that cannot be, and another one may do."""
        check_guest(self.settings.config)
        with ExitStack() as opened:
            way = opened.enter_context(way_to(uri, "destination"))
            self.receiver = self._receiver(way.uri, uri)
            self._way, self._opened = way, opened.pop_all()
        self.is_stream, self._is_waiting = uri.is_stream, True
        self.status.change(Status.NONE, Status.SETUP)
        address = str(uri) if uri.is_stream else uri_of(self.receiver.engine.link.endpoint)
        structlog.get_logger().info("listening", socket_address=address)

    def _receiver(self, here: Uri, uri: Uri) -> Receiver:
        config = self.settings.config
        check_host(here)
        keys = server_keys(config.security, here)
        warn_without_keys(config.security, here)
        try:
            return Receiver(
                here,
                lambda: self.settings.config,
                guest_maker(config),
                self.status,
                make_disks=disk_maker(config),
                cancel=self.cancel,
                keys=keys,
                on_tick=self._tick,
                on_guest=lambda runs: self.on_guest(runs),
            )
        except OSError as error:
            raise ConfigError(f"uri: cannot listen on {uri}: {error.strerror}") from None

    def receive(self, stay: float | None) -> Result:
        """Take the guest in, and keep it for `stay` seconds; None: until it has checked itself."""
        assert self.receiver is not None, "somebody listens"
        self._is_waiting = False
        self.receiver.receive()
        if self._way is not None:
            self._way.close(self.watch)
        self._opened.close()
        result = result_of(self.receiver, self.status, self._timeline)
        guest = self.guest
        if guest is None or not guest.checks_itself:
            return result
        return self._keep(guest, result, stay)

    @property
    def guest(self) -> ArrivingGuest | None:
        """The guest, once it has arrived as one that can run."""
        if self.receiver is None or self.status.status is not Status.COMPLETED:
            return None
        guest = self.receiver.custody.guest
        return None if guest is None or guest.process is None else guest

    def _keep(self, guest: ArrivingGuest, result: Result, stay: float | None) -> Result:
        """Let it be, and check it: at once, and again when `stay` is over."""
        try:
            wrong = self._check(guest)
            if stay is not None and wrong is None:
                structlog.get_logger().info(f"the guest is here, for {stay:g} s more")
                self._stay(stay)
                wrong = None if self.cancel.is_set() else self._check(guest)
            result.guest_gap = guest.statistics().gap_ms
        except GuestError as error:
            wrong = str(error)
            result.guest_alive = "none" if guest.is_dead() else "destination"
        result.self_check = wrong or "clean"
        return result

    def _check(self, guest: ArrivingGuest) -> str | None:
        """What is wrong with its memory; whoever asks something meanwhile is answered.

        It stands still as long, and hears nothing: what it is told to do it does afterwards.
        """
        self._is_checked = True
        try:
            wrong = guest.self_check(self.watch)
        finally:
            self._is_checked = False
        if self._told is not None:
            self.let_run(self._told)
        return wrong

    def _stay(self, seconds: float) -> None:
        deadline = monotonic() + seconds
        while not self.cancel.is_set() and (left_s := deadline - monotonic()) > 0:
            self.idle(min(left_s, IDLE_SECONDS))

    def run_state(self) -> str:
        """What the guest does, in QEMU's words."""
        if self.guest is None:
            return "postmigrate" if self.status.has_finished else "inmigrate"
        assert self.receiver is not None
        return "running" if self._runs(self.guest) else self.receiver.stopped_state

    def _runs(self, guest: ArrivingGuest) -> bool:
        """Whether it runs, or is to run once it is checked."""
        if not self._is_checked:
            return guest.run_state() == "running"
        assert self.receiver is not None
        return self.receiver.custody.runs_here if self._told is None else self._told

    def let_run(self, runs: bool) -> None:
        """Let the guest run, or stop it; before it has come: whether it is to run then."""
        if self.guest is None:
            self.settings.set_autostart(runs)
            return
        self._told = runs
        if self._is_checked or runs == self._runs(self.guest):
            return
        if runs:
            self.guest.go_on()
        else:
            self.guest.pause()
        self.on_guest(runs)

    def _tick(self, now_ns: int) -> None:
        self.watch()
        if self._way is not None:
            self._way.check()
        self._show(now_ns)

    def _tell(self) -> None:
        if self.receiver is not None:
            self._observer(progress_of(self.receiver, self.status, self._timeline))

    def close(self) -> None:
        """End a guest that is ours; one that lives on its own stays. Idempotent."""
        self._opened.close()
        if self.receiver is None:
            return
        if self._is_waiting:
            self.receiver.engine.close()
        if self.receiver.custody.guest is not None:
            self.receiver.custody.guest.close()
