"""The commands of a destination: it waits where it is told to, and starts what came as told."""

from collections.abc import Callable

from pipeline.config.fields import absolute_uri
from pipeline.destination.incoming import Incoming
from pipeline.monitor import arguments
from pipeline.monitor.answers import arrival_info, status_info
from pipeline.monitor.commands import Commands
from pipeline.monitor.common import SettingCommands
from pipeline.source.outgoing import IN_PROGRESS
from protocol.errors import ConfigError, MigrationRefused
from protocol.qmp import QmpError
from protocol.status import Status
from protocol.uri import DEFER, Uri, parse_uri


class DestinationCommands:
    """What is asked of `incoming`; `on_uri` is called for every URI that is taken, good or bad.

    Belongs, as all commands do, to the thread that owns the migration.
    """

    def __init__(
        self,
        commands: Commands,
        incoming: Incoming,
        *,
        deferred: bool,
        on_uri: Callable[[], None],
    ) -> None:
        self._on_uri = on_uri
        self._incoming = incoming
        self._deferred = deferred
        SettingCommands(commands, incoming.settings, self._check_idle)
        commands.add_with("migrate", arguments.Migrate, self._migrate)
        commands.add_with("migrate-incoming", arguments.MigrateIncoming, self._wait_at)
        commands.add_with("migrate-continue", arguments.MigrateContinue, self._go_on)
        commands.add("migrate_cancel", lambda: None)
        commands.add("query-migrate", lambda: arrival_info(incoming))
        commands.add("query-status", lambda: status_info(incoming.run_state()))
        commands.add("stop", lambda: incoming.let_run(False))
        commands.add("cont", lambda: incoming.let_run(True))

    def _check_idle(self) -> None:
        if self._incoming.status.status is Status.ACTIVE:
            raise MigrationRefused(IN_PROGRESS)

    def _migrate(self, _: arguments.Migrate) -> None:
        if not self._incoming.status.has_finished:
            raise QmpError("Guest is waiting for an incoming migration")
        raise QmpError("a destination does not send: `pageferry migrate` does")

    def _wait_at(self, given: arguments.MigrateIncoming) -> None:
        if not self._deferred:
            raise QmpError("For use with '-incoming defer'")
        if self._incoming.receiver is not None:
            raise QmpError("The incoming migration has already been started")
        if given.uri == DEFER:
            raise QmpError("Incoming migration already deferred")
        try:
            uri = parse_uri(absolute_uri(given.uri, "destination"))
        except ConfigError:
            self._on_uri()
            raise
        self.take(uri)

    def take(self, uri: Uri) -> None:
        """Wait at `uri`; ConfigError where that cannot be, and another one may be tried."""
        self._on_uri()
        self._incoming.listen(uri)

    def _go_on(self, given: arguments.MigrateContinue) -> None:
        raise QmpError(f"the migration is {self._incoming.status.status}, not {given.state}")
