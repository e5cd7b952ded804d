"""Makes the guest that is to leave, as the configuration wants it."""

from pipeline.config.model import Config
from pipeline.config.model import FileGuest as FileConfig
from pipeline.config.model import QemuGuest as QemuConfig
from pipeline.guests.base import SourceGuest
from pipeline.guests.disks import LeavingDisk, close_disks, open_disk
from pipeline.guests.file import FileGuest
from pipeline.guests.process import process_at
from pipeline.guests.synthetic import SyntheticGuest
from pipeline.guests.workload import Workload
from pipeline.leftovers.cleanup import clear_way
from pipeline.records.processes import maybe_process
from protocol.errors import ConfigError, NoSuchGuest


def make_guest(config: Config) -> SourceGuest:
    """The guest that `config` describes, running; ConfigError where there is none.

    What an earlier migration of a guest that lives on its own has left is put right first.
    """
    guest = config.guest
    if isinstance(guest, FileConfig):
        writer = None if guest.pid is None else maybe_process(guest.pid)
        clear_way(lambda record: writer is not None and record.guest == writer)
        return FileGuest(guest.path, guest.pid)
    if isinstance(guest, QemuConfig):
        return _qemu(guest)
    if guest.socket is None:
        return SyntheticGuest.start(guest.memory, Workload(**guest.workload.model_dump()))
    try:
        process = process_at(guest.socket)
        clear_way(lambda record: record.guest == process)
        return SyntheticGuest.attach(guest.socket)
    except NoSuchGuest as error:
        raise ConfigError(f"guest.socket: {error}") from None


def leaving_disks(config: Config) -> list[LeavingDisk]:
    """The disks that move along, open; the caller's to close. ConfigError, and nothing left open,
    where one cannot be had."""
    opened: list[LeavingDisk] = []
    try:
        for number, disk in enumerate(config.disks):
            opened.append(open_disk(number, disk.path, disk.base))
    except BaseException:
        close_disks(opened)
        raise
    return opened


def _qemu(config: QemuConfig) -> SourceGuest:
    from pipeline.guests.qemu.monitor import process_at as qemu_at  # its library is an extra
    from pipeline.guests.qemu.source import QemuGuest

    try:
        process = qemu_at(config.qmp)
        clear_way(lambda record: record.guest == process)
        return QemuGuest(config.qmp, quits=config.on_completed == "quit")
    except NoSuchGuest as error:
        raise ConfigError(f"guest.qmp: {error}") from None
