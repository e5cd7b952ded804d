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
from pipeline.progress import Observer
from pipeline.records.processes import maybe_process
from pipeline.result import Result
from pipeline.source.outgoing import Outgoing
from protocol.errors import ConfigError, NoSuchGuest
from protocol.status import StatusMachine
from protocol.uri import Uri
from workers.fork_server import warm_up


def make_guest(config: Config) -> SourceGuest:
    """The guest that `config` describes, running; ConfigError where there is none.

    What an earlier migration of a guest that lives on its own has left is put right first.
    """
    guest = config.guest
    if isinstance(guest, FileConfig):
        writer = None if guest.pid is None else maybe_process(guest.pid)
        clear_way(lambda record: writer is not None and record.guest == writer)
        return FileGuest(guest.path, guest.pid)
    if guest.socket is None:
        return SyntheticGuest.start(guest.memory, Workload(**guest.workload.model_dump()))
    try:
        process = process_at(guest.socket)
        clear_way(lambda record: record.guest == process)
        return SyntheticGuest.attach(guest.socket)
    except NoSuchGuest as error:
        raise ConfigError(f"guest.socket: {error}") from None


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
    if not uri.is_stream:
        warm_up()
    own = make_guest(config) if guest is None else guest
    outgoing = Outgoing(config, own, observer, status)
    outgoing.watch = watch
    try:
        return outgoing.migrate_now(uri)
    finally:
        if guest is None:
            own.close()
