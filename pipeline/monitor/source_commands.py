"""The commands of a source: it migrates when it is told to, and lives until it is told to end."""

from pipeline.config.fields import absolute_uri
from pipeline.monitor import arguments
from pipeline.monitor.answers import migration_info, status_info
from pipeline.monitor.commands import Commands
from pipeline.monitor.common import SettingCommands
from pipeline.source.outgoing import Outgoing
from protocol.errors import ConfigError
from protocol.qmp import QmpError
from protocol.uri import Uri, parse_uri


class SourceCommands:
    """What is asked of `outgoing`; `uri` is where it is to go next, `quitting` that it is to end.

    Belongs, as all commands do, to the thread that owns the migration.
    """

    def __init__(self, commands: Commands, outgoing: Outgoing) -> None:
        self._outgoing = outgoing
        self.uri: Uri | None = None
        self.quitting = False
        SettingCommands(commands, outgoing.settings, outgoing.check_idle)
        commands.add_with("migrate", arguments.Migrate, self._migrate)
        commands.add_with("migrate-incoming", arguments.MigrateIncoming, self._not_deferred)
        commands.add_with("migrate-continue", arguments.MigrateContinue, self._go_on)
        commands.add("migrate_cancel", outgoing.cancel)
        commands.add("query-migrate", lambda: migration_info(outgoing))
        commands.add("query-status", lambda: status_info(outgoing.run_state()))
        commands.add("stop", outgoing.pause_guest)
        commands.add("cont", outgoing.run_guest)

    def _migrate(self, given: arguments.Migrate) -> None:
        self._outgoing.check()
        if self.quitting:
            raise QmpError("the command is about to end")
        disks = self._outgoing.settings.config.disks
        if given.blk and not disks:
            raise QmpError("blk: the configuration lists no disks")
        if given.inc and not (disks and all(disk.base for disk in disks)):
            raise QmpError("inc: the configuration lists no disks, or one of them without a base")
        self._outgoing.begin()
        try:
            uri = parse_uri(absolute_uri(given.uri, "source"))
            self._outgoing.keys_for(uri)
        except ConfigError as error:
            self._outgoing.fail(error)
            raise
        self.uri = uri

    def _not_deferred(self, _: arguments.MigrateIncoming) -> None:
        raise QmpError("For use with '-incoming defer'")

    def _go_on(self, given: arguments.MigrateContinue) -> None:
        self._outgoing.go_on(given.state)

    def end(self) -> None:
        """End, and with it what is under way."""
        self.quitting = True
        self._outgoing.end()
