"""A destination that somebody may drive: by QMP, by signals, or by nothing but its options."""

from pathlib import Path

from pipeline.config.model import Config
from pipeline.destination.incoming import Incoming
from pipeline.monitor.destination_commands import DestinationCommands
from pipeline.monitor.monitor import Monitor
from pipeline.progress import Observer
from pipeline.result import Result
from pipeline.signals import cancelled_by_signals
from protocol.status import Status
from protocol.uri import Uri
from workers.fork_server import warm_up


def serve_destination(
    config: Config, uri: Uri | None, qmp: Path | None, stay: float | None, observer: Observer
) -> Result:
    """Take one guest in at `uri`; with None where the socket `qmp` is told. How that ended.

    It is kept for `stay` seconds; None: until it has checked itself. ConfigError for the user's
    mistakes; whatever else goes wrong is in the result.
    """
    with Monitor(qmp) as monitor:
        destination = Destination(Incoming(config, observer), monitor, deferred=uri is None)
        return destination.serve(uri, stay)


class Destination:
    """The arrival of one guest, and the monitor that it is driven by."""

    def __init__(self, incoming: Incoming, monitor: Monitor, *, deferred: bool) -> None:
        self._incoming = incoming
        self._monitor = monitor
        self._commands = DestinationCommands(
            monitor.commands,
            incoming,
            deferred=deferred,
            on_uri=lambda: monitor.tell_status(Status.SETUP),
        )
        monitor.on_quit(incoming.cancel.set)
        incoming.watch = monitor.inbox.serve
        incoming.idle = monitor.inbox.wait
        incoming.on_guest = monitor.tell_guest
        monitor.has_events = lambda: incoming.settings.config.capabilities.events
        incoming.status.notify(self._tell)

    def serve(self, uri: Uri | None, stay: float | None) -> Result:
        """Wait at `uri`, or where it is said, for a guest, and keep it."""
        incoming = self._incoming
        self._monitor.listen()
        try:
            if uri is not None:
                self._commands.take(uri)
            with cancelled_by_signals(incoming.cancel.set):
                warm_up()
                while incoming.receiver is None and not incoming.cancel.is_set():
                    self._monitor.idle()
                return self._receive(stay)
        finally:
            incoming.close()

    def _receive(self, stay: float | None) -> Result:
        if self._incoming.receiver is None:
            return Result(status=Status.CANCELLED, error_desc="cancelled")
        return self._incoming.receive(stay)

    def _tell(self, status: Status) -> None:
        if status is not Status.SETUP:
            self._monitor.tell_status(status)
