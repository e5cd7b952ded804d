"""The migrations of one guest from here: what outlives them, and whether one may begin."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from pipeline.config.adjustable import Adjustable
from pipeline.config.links import check_host, client_keys, warn_without_keys
from pipeline.config.model import Config, Parameters
from pipeline.guests.base import SourceGuest
from pipeline.guests.disks import close_disks
from pipeline.logs import log_if_unexpected
from pipeline.progress import Observer, Progress, every_so_often
from pipeline.result import Result
from pipeline.signals import Flag, cancelled_by_signals
from pipeline.source.blockers import Blockers
from pipeline.source.coordinator import Coordinator
from pipeline.source.departures import leaving_disks
from pipeline.source.report import progress_of, result_of
from pipeline.source.tracking import start_tracking
from pipeline.streams.way import Way, way_to
from pipeline.timeline import Timeline
from protocol.errors import ConfigError, MigrationRefused
from protocol.limits import PAGE_BYTES
from protocol.status import Status, StatusMachine
from protocol.uri import Uri
from workers.keys import ClientKeys

IN_PROGRESS = "There's a migration process in progress"


@dataclass(frozen=True)
class Reached:
    """The way to the other end, and the keys for it."""

    way: Way
    keys: ClientKeys | None


class Outgoing:
    """Owned by the thread that calls `migrate`; the guest is the caller's.

    `watch` is called at every tick of a migration, which it may end by a MigrationError, and while
    its way is closed; `on_guest` whenever the guest was let run (True) or stopped.
    """

    def __init__(
        self,
        config: Config,
        guest: SourceGuest,
        observer: Observer,
        status: StatusMachine | None = None,
    ) -> None:
        self.guest = guest
        self.status = status or StatusMachine()
        self.blockers = Blockers()
        self.settings = Adjustable(config, sum(block.pages for block in guest.blocks) * PAGE_BYTES)
        self.settings.on_parameters = self._adjust
        self.coordinator: Coordinator | None = None
        self.on_guest: Callable[[bool], None] = lambda _: None
        self.error: str | None = None
        self._cancel = Flag()
        self._way: Way | None = None
        self._is_away = False
        self._is_ending = False
        self._timeline = Timeline(self.status)
        self.watch: Callable[[], None] = lambda: None
        self._observer = observer
        self._show = every_so_often(self._tell)
        self.status.notify(lambda _: self._tell())

    @property
    def is_active(self) -> bool:
        """Whether a migration is under way."""
        return self.status.status is not Status.NONE and not self.status.has_finished

    def check(self) -> None:
        """MigrationRefused, and nothing has changed, where none may begin now."""
        self.check_idle()
        reason = self.guest.why_not_movable() or self.blockers.newest
        if reason is not None:
            raise MigrationRefused(reason)

    def check_idle(self) -> None:
        """MigrationRefused while one is under way."""
        if self.is_active:
            raise MigrationRefused(IN_PROGRESS)

    def begin(self) -> None:
        """The command to migrate is taken: setup. MigrationRefused as `check`."""
        self.check()
        self.coordinator, self.error = None, None
        self.status.change(self.status.status, Status.SETUP)

    def fail(self, error: Exception) -> None:
        """What was begun cannot be done."""
        self.error = str(error)
        self._cancel.clear()
        self.status.change(Status.SETUP, Status.FAILED)

    @contextmanager
    def reach(self, uri: Uri) -> Iterator[Reached]:
        """What leads to `uri`, while this lasts; ConfigError where that cannot be had."""
        self.settings.check(uri)
        with way_to(uri, "source") as way:
            keys = self.keys_for(way.uri)
            warn_without_keys(self.settings.config.security, way.uri)
            yield Reached(way, keys)

    def keys_for(self, uri: Uri) -> ClientKeys | None:
        """For the links to `uri`; ConfigError for a host that is not known, or without the keys
        that it needs."""
        check_host(uri)
        return client_keys(self.settings.config.security, uri)

    def migrate(self, uri: Uri) -> Result:
        """Do what was begun: send the guest to `uri`; how that ended.

        ConfigError where nobody can be reached there.
        """
        try:
            with self.reach(uri) as reached:
                return self.send(reached)
        except Exception as error:
            return self._give_up(error)

    def migrate_now(self, uri: Uri) -> Result:
        """Begin, and do it; a signal ends it. ConfigError before anything has begun, too."""
        with self.reach(uri) as reached, cancelled_by_signals(self.end):
            self.begin()
            return self.send(reached)

    def send(self, reached: Reached) -> Result:
        """As `migrate`, to what is reached already."""
        self._way = reached.way
        try:
            self.coordinator = self._coordinate(reached)
        except Exception as error:
            return self._give_up(error)
        self.coordinator.migrate()
        self._cancel.clear()
        reached.way.completed = self.status.status is Status.COMPLETED
        self.error = self.coordinator.error
        result = self.result()
        if result.guest_alive in ("destination", "unknown"):
            self._is_away = True
            self.blockers.add(f"the guest was given away in session {result.session}")
        reached.way.close(self.watch, lambda: self._is_ending)
        return result

    def _give_up(self, error: Exception) -> Result:
        """How what could not be done ended; the user's own mistake is raised."""
        self.fail(error)
        if isinstance(error, ConfigError):
            raise error
        log_if_unexpected(error)
        return self.result()

    def _coordinate(self, reached: Reached) -> Coordinator:
        config, disks = self.settings.config, leaving_disks(self.settings.config)
        with ExitStack() as opened:
            opened.callback(close_disks, disks)
            coordinator = Coordinator(
                config,
                self.guest,
                start_tracking(config.tracker, self.guest, config.verify),
                self.status,
                reached.way.uri,
                self._tick,
                cancel=self._cancel,
                keys=reached.keys,
                disks=disks,
                on_guest=lambda runs: self.on_guest(runs),
            )
            opened.pop_all()
        return coordinator

    def result(self) -> Result:
        """How the last migration ended."""
        if self.coordinator is None:
            return Result(
                status=self.status.status,
                name=self.settings.config.name,
                guest_alive="source",
                error_desc=self.error,
            )
        config = self.settings.config
        return result_of(self.coordinator, config, self.status, self._timeline)

    def cancel(self) -> None:
        """End the migration that is under way, if there is one that can be ended."""
        if self.is_active:
            self._cancel.set()

    def end(self) -> None:
        """As `cancel`, and of what is about to begin, too; a command that has the guest is not
        waited for any more."""
        self._is_ending = True
        self._cancel.set()

    def go_on(self, state: str) -> None:
        """Leave `state`, which must be pre-switchover; MigrationRefused where it is not."""
        if self.status.status != state or self.status.status is not Status.PRE_SWITCHOVER:
            raise MigrationRefused(f"the migration is {self.status.status}, not {state}")
        assert self.coordinator is not None
        self.coordinator.go_on.set()

    def run_state(self) -> str:
        """What the guest does, in QEMU's words."""
        if self._is_switching_over:
            return "finish-migrate"
        if self._is_away:
            return "postmigrate"
        return self.guest.run_state()

    def pause_guest(self) -> None:
        """Let it stand still, as its user wishes: it arrives paused."""
        self._check_guest()
        if self.guest.run_state() == "running":
            if self.coordinator is not None:  # else it would be let go on once more
                self.coordinator.custody.slowing.release()
            self.guest.pause()
            self.on_guest(False)

    def run_guest(self) -> None:
        """Let it run."""
        self._check_guest()
        if self.guest.run_state() != "running":
            self.guest.go_on()
            self.on_guest(True)

    @property
    def _is_switching_over(self) -> bool:
        return self.is_active and self.coordinator is not None and self.coordinator.has_stopped

    def _check_guest(self) -> None:
        if self._is_switching_over or self._is_away:
            leaves = "has left" if self._is_away else "is leaving"
            raise MigrationRefused(f"the guest {leaves}: it is not told to stop or go on here")

    def _tick(self, now_ns: int) -> None:
        self.watch()
        if self._way is not None:
            self._way.check()
        self._show(now_ns)

    def _tell(self) -> None:
        if self.coordinator is None:
            self._observer(Progress(self.status.status))
        else:
            self._observer(progress_of(self.coordinator, self.status, self._timeline))

    def _adjust(self, parameters: Parameters) -> None:
        if self.coordinator is not None and self.is_active:
            self.coordinator.adjust(parameters)
