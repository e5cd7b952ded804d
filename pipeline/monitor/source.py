"""A source that somebody may drive: by QMP, by signals, or by nothing but its configuration."""

from collections.abc import Callable
from pathlib import Path

import structlog

from pipeline.config.model import Config
from pipeline.monitor.monitor import Monitor
from pipeline.monitor.source_commands import SourceCommands
from pipeline.progress import Observer
from pipeline.result import Result
from pipeline.signals import cancelled_by_signals
from pipeline.source.departures import make_guest
from pipeline.source.outgoing import Outgoing
from protocol.errors import ConfigError
from protocol.status import Status
from protocol.uri import Uri
from workers.fork_server import warm_up


def serve_source(
    config: Config,
    uri: Uri | None,
    qmp: Path | None,
    observer: Observer,
    watch: Callable[[], None] = lambda: None,
    *,
    on_each: Callable[[Result], None] = lambda _: None,
) -> Result:
    """Send the guest of `config` to `uri`; with None do what is said at the socket `qmp`, until
    it is `quit`. How the last migration ended; `on_each` hears of each that was asked for there.

    `watch` is called at every tick and may raise a MigrationError. ConfigError for the user's
    mistakes; whatever else goes wrong is in the result.
    """
    if uri is None or not uri.is_stream:
        warm_up()
    with Monitor(qmp) as monitor:
        guest = make_guest(config)
        try:
            source = Source(Outgoing(config, guest, observer), monitor, watch, on_each)
            monitor.listen()
            return source.migrate(uri) if uri is not None else source.obey()
        finally:
            guest.close()


class Source:
    """The migrations of one guest, and the monitor that they are driven by."""

    def __init__(
        self,
        outgoing: Outgoing,
        monitor: Monitor,
        watch: Callable[[], None],
        on_each: Callable[[Result], None],
    ) -> None:
        self._outgoing = outgoing
        self._monitor = monitor
        self._watch = watch
        self._on_each = on_each
        self._commands = SourceCommands(monitor.commands, outgoing)
        monitor.on_quit(self._commands.end)
        outgoing.watch = self._look
        outgoing.on_guest = monitor.tell_guest
        monitor.has_events = lambda: outgoing.settings.config.capabilities.events
        outgoing.status.notify(monitor.tell_status)

    def migrate(self, uri: Uri) -> Result:
        """Migrate at once."""
        return self._outgoing.migrate_now(uri)

    def obey(self) -> Result:
        """Wait to be told what to do, and do it."""
        with cancelled_by_signals(self._commands.end):
            while self._commands.uri is not None or not self._commands.quitting:
                self._monitor.idle()
                uri, self._commands.uri = self._commands.uri, None
                if uri is not None:
                    self._migrate(uri)
        return self._outgoing.result()

    def _migrate(self, uri: Uri) -> None:
        """A migration that does not end well is told, and another one may be asked for, even
        before its way has ended: `result` is that of this one."""
        try:
            result = self._outgoing.migrate(uri)
        except ConfigError:
            result = self._outgoing.result()
        if result.status is Status.FAILED:
            structlog.get_logger().warning(f"the migration failed: {result.error_desc}")
        self._on_each(result)

    def _look(self) -> None:
        self._watch()
        self._monitor.inbox.serve()
        coordinator = self._outgoing.coordinator
        if coordinator is not None:
            self._monitor.tell_passes(len(coordinator.engine.statistics.rounds))
