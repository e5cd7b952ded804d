"""One end's monitor: commands, inbox and, where it is asked for, the QMP server with its events."""

from collections.abc import Callable
from pathlib import Path

import structlog

from pipeline.monitor.commands import Commands
from pipeline.monitor.inbox import Inbox
from pipeline.monitor.server import QmpServer
from protocol.status import Status

IDLE_SECONDS = 0.2


class Monitor:
    """Owned by the thread that owns the migration. A context manager: its end is the server's.

    ConfigError where it cannot listen at `path`; None is no server, and nobody drives.
    """

    def __init__(self, path: Path | None) -> None:
        self.commands = Commands()
        self.inbox = Inbox()
        self._path = path
        self._server: QmpServer | None = None
        self._passes = 0
        self._reason = "none"
        self.has_events: Callable[[], bool] = lambda: True
        """Whether a migration tells of itself, the capability `events`."""

    def __enter__(self) -> "Monitor":
        return self

    def listen(self) -> None:
        """All commands are known: let clients in."""
        if self._path is not None:
            self._server = QmpServer(self._path, self.commands, self.inbox)
            structlog.get_logger().info("listening for QMP", path=str(self._path))

    def on_quit(self, end: Callable[[], None]) -> None:
        """What the command `quit` does."""

        def quit_() -> None:
            self._reason = "host-qmp-quit"
            end()

        self.commands.add("quit", quit_)

    def idle(self) -> None:
        """Do what is asked, where nothing else is to be done; a signal is seen soon after."""
        self.inbox.wait(IDLE_SECONDS)

    def emit(self, name: str, **data: object) -> None:
        """Tell all clients."""
        if self._server is not None:
            self._server.emit(name, data)

    def tell_status(self, status: Status) -> None:
        """A migration has come to `status`."""
        if self.has_events():
            self.emit("MIGRATION", status=status.value)
        if status is Status.SETUP:
            self._passes = 0

    def tell_passes(self, passes: int) -> None:
        """So many rounds were begun."""
        if self.has_events():
            for number in range(self._passes + 1, passes + 1):
                self.emit("MIGRATION_PASS", **{"pass": number})
        self._passes = passes

    def tell_guest(self, runs: bool) -> None:
        """The guest was let run, or was stopped."""
        self.emit("RESUME" if runs else "STOP")

    def __exit__(self, *_: object) -> None:
        self.emit("SHUTDOWN", guest=False, reason=self._reason)
        self.inbox.close()
        if self._server is not None:
            self._server.close()
