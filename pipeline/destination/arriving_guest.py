"""Makes the guest that a source's hello describes, where the configuration wants it."""

import shutil
from collections.abc import Callable
from pathlib import Path

import psutil

from pipeline.config.environment import check_codec
from pipeline.config.model import Config, Destination
from pipeline.destination.places import make_place
from pipeline.guests.base import ArrivingGuest
from pipeline.guests.file import FileArrival
from pipeline.guests.process import process_at
from pipeline.guests.synthetic import SyntheticArrival, check_waits
from pipeline.leftovers.cleanup import clear_way
from pipeline.records.store import SessionRecord
from protocol.control import Hello
from protocol.errors import (
    ConfigError,
    GuestError,
    MigrationError,
    NoSuchGuest,
    RemoteProtocolError,
)
from protocol.limits import PAGE_BYTES

TABLE_BYTES_A_PAGE = 16
"""Expected hash 8, newest read-back job 4, marks for written, wrong and a comparison."""


def guest_maker(config: Config) -> Callable[[Hello, SessionRecord], ArrivingGuest]:
    """What makes it: given the hello, and the record for what that does to others."""
    wanted = config.destination

    def make(hello: Hello, record: SessionRecord) -> ArrivingGuest:
        _check_wanted(wanted, hello)
        guest, socket = _made(wanted, hello, record), wanted.socket
        try:
            record.name_guest(guest.process, None if socket is None else str(socket.absolute()))
        except MigrationError:
            guest.close()
            raise
        return guest

    return make


def _check_wanted(wanted: Destination, hello: Hello) -> None:
    """GuestError where another guest comes than is waited for, or there is no room for it."""
    socket, qmp = wanted.socket, wanted.qmp
    if wanted.name not in (None, hello.name):
        raise GuestError(f"guest {hello.name} comes, here {wanted.name} is waited for")
    check_codec(hello.codec)
    if qmp is not None and hello.kind != "qemu":
        raise GuestError(f"a QEMU at {qmp} waits here for a guest of kind {hello.kind}")
    if qmp is None and hello.kind == "qemu":
        raise GuestError(f"a guest of kind {hello.kind} comes: destination.qmp names none here")
    if socket is not None and hello.kind != "synthetic":
        raise GuestError(f"a synthetic guest waits at {socket}, one of kind {hello.kind} comes")
    if qmp is None and socket is None:
        _check_room(hello, wanted.path)
    _check_tables(hello)


def _made(wanted: Destination, hello: Hello, record: SessionRecord) -> ArrivingGuest:
    if wanted.qmp is not None:
        return _qemu(wanted.qmp, hello, record)
    if wanted.socket is not None:
        return _attached(wanted.socket, hello, record)
    if wanted.path is not None:
        make_place(wanted.path, record)
    return _land(hello, wanted.path)


def _attached(socket: Path, hello: Hello, record: SessionRecord) -> SyntheticArrival:
    process = process_at(socket)
    clear_way(lambda earlier: earlier.guest == process)
    guest = SyntheticArrival.attach(socket, hello.blocks)
    guest.tell_session(record.record.session)
    return guest


def _qemu(qmp: Path, hello: Hello, record: SessionRecord) -> ArrivingGuest:
    from pipeline.guests.qemu.arrival import QemuArrival  # its library is an extra
    from pipeline.guests.qemu.monitor import process_at as qemu_at

    process = qemu_at(qmp)
    clear_way(lambda earlier: earlier.guest == process)
    guest = QemuArrival(qmp, record.add)
    try:
        guest.expect(hello.machine, hello.blocks)
    except GuestError:
        guest.close()
        raise
    return guest


def check_guest(config: Config) -> None:
    """ConfigError where a guest is named that is to be filled, and none waits there."""
    socket, qmp = config.destination.socket, config.destination.qmp
    try:
        if socket is not None:
            check_waits(socket)
        if qmp is not None:
            from pipeline.guests.qemu.arrival import QemuArrival  # its library is an extra

            QemuArrival(qmp, lambda _: None).close()
    except NoSuchGuest as error:
        key = "socket" if qmp is None else "qmp"
        raise ConfigError(f"destination.{key}: {error}") from None


def _land(hello: Hello, path: Path | None) -> ArrivingGuest:
    match hello.kind:
        case "synthetic":
            return SyntheticArrival.start(hello.blocks, path)
        case "file":
            return FileArrival(path, hello.blocks)
    raise RemoteProtocolError(f"a guest of unknown kind {hello.kind!r}")


def _check_room(hello: Hello, path: Path | None) -> None:
    """GuestError for a guest that there is no room for.

    A guest that runs on here writes into its holes, too; of a file they stay holes.
    """
    pages = sum(block.pages for block in hello.blocks)
    where = None if path is None else path.parent
    room = (
        psutil.virtual_memory().total
        if where is None
        else _room(where, path, all_of_it=hello.kind == "file")
    )
    if pages * PAGE_BYTES > room:
        raise GuestError(
            f"the guest has {pages * PAGE_BYTES} bytes of memory,"
            f" {where or 'this machine'} has room for {room}"
        )


def _check_tables(hello: Hello) -> None:
    """GuestError where there is no room for the tables about a guest, and its disks."""
    disk_pages = sum(disk.pages for disk in hello.disks)
    pages = sum(block.pages for block in hello.blocks) + disk_pages
    if pages * TABLE_BYTES_A_PAGE > psutil.virtual_memory().available:
        raise GuestError(f"no room for the tables about a guest of {pages} pages")


def _room(where: Path, path: Path | None, *, all_of_it: bool) -> int:
    """The bytes that fit into the file system of folder `where`; what `path` takes is free."""
    usage = shutil.disk_usage(where)
    if all_of_it:
        return usage.total
    taken = path.stat().st_blocks * 512 if path is not None and path.exists() else 0
    return usage.free + taken
