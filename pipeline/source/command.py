"""The source as a command: makes the guest, migrates it, tells what happened."""

from collections.abc import Callable

from pipeline.config.model import Config
from pipeline.config.model import FileGuest as FileConfig
from pipeline.guests.base import SourceGuest
from pipeline.guests.file import FileGuest
from pipeline.guests.process import process_at
from pipeline.guests.synthetic import SyntheticGuest
from pipeline.guests.workload import Workload
from pipeline.leftovers.cleanup import clear_way
from pipeline.progress import Observer, every_so_often
from pipeline.records.processes import maybe_process
from pipeline.result import Result
from pipeline.shell.signals import cancelled_by_signals
from pipeline.source.coordinator import Coordinator
from pipeline.source.report import progress_of, result_of
from pipeline.streams.way import Way, way_to
from pipeline.timeline import Timeline
from pipeline.tracking.choice import start_tracking
from protocol.status import Status, StatusMachine
from protocol.uri import Uri
from workers.pool import warm_up


def make_guest(config: Config) -> SourceGuest:
    """The guest that `config` describes, running; GuestError where there is none.

    What an earlier migration of a guest that lives on its own has left is put right first.
    """
    guest = config.guest
    if isinstance(guest, FileConfig):
        writer = None if guest.pid is None else maybe_process(guest.pid)
        clear_way(lambda record: writer is not None and record.guest == writer)
        return FileGuest(guest.path, guest.pid)
    if guest.socket is None:
        return SyntheticGuest.start(guest.memory, Workload(**guest.workload.model_dump()))
    process = process_at(guest.socket)
    clear_way(lambda record: record.guest == process)
    return SyntheticGuest.attach(guest.socket)


def migrate(
    config: Config,
    uri: Uri,
    observer: Observer,
    *,
    guest: SourceGuest | None = None,
    status: StatusMachine | None = None,
    watch: Callable[[], None] = lambda: None,
) -> Result:
    """Send the guest of `config` to `uri`.

    A `guest` that is handed in stays the caller's; otherwise it is made here and ends
    here. `watch` is called at every tick and may raise a MigrationError. ConfigError
    for the user's mistakes; whatever else goes wrong is in the result.
    """
    with way_to(uri, "source") as way:
        warm_up()
        own = make_guest(config) if guest is None else guest
        try:
            result = _send(config, way, observer, own, status or StatusMachine(), watch)
            way.completed = result.status is Status.COMPLETED
            return result
        finally:
            if guest is None:
                own.close()


def _send(
    config: Config,
    way: Way,
    observer: Observer,
    guest: SourceGuest,
    status: StatusMachine,
    watch: Callable[[], None],
) -> Result:
    timeline = Timeline(status)
    show = every_so_often(lambda: observer(progress_of(coordinator, status, timeline)))

    def on_tick(now_ns: int) -> None:
        watch()
        way.check()
        show(now_ns)

    tracking = start_tracking(config.tracker, guest)
    coordinator = Coordinator(config, guest, tracking, status, way.uri, on_tick)
    status.notify(lambda _: observer(progress_of(coordinator, status, timeline)))
    with cancelled_by_signals(coordinator.cancel):
        coordinator.migrate()
    return result_of(coordinator, config, status, timeline)
