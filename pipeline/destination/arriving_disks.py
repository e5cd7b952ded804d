"""Makes the files that disks land in, as the configuration lists them.

All bases, and all files, are looked at before the first one is changed.
"""

import os
from collections.abc import Callable
from contextlib import ExitStack
from threading import Thread

import structlog

from pipeline.config.environment import check_places
from pipeline.config.model import Config, Disk
from pipeline.destination.places import make_place
from pipeline.guests.disks import ArrivingDisk, base_hashes, open_image
from pipeline.records.store import SessionRecord
from protocol.control import DiskInfo, Hello
from protocol.digest import page_seed, table_digest
from protocol.errors import GuestError
from workers.pages import Hashes

Tick = Callable[[], object]
Made = Callable[[Hello, SessionRecord, Tick], list[ArrivingDisk]]
Base = tuple[int, Hashes]
"""A descriptor, and the hashes of its pages."""


def disk_maker(config: Config) -> Made:
    """What makes them: given the hello, the record for what that does to others, and what to call
    now and then."""

    def make(hello: Hello, record: SessionRecord, tick: Tick) -> list[ArrivingDisk]:
        if len(hello.disks) != len(config.disks):
            raise GuestError(
                f"{len(hello.disks)} disks come, the configuration here lists {len(config.disks)}"
            )
        check_places(config.disks)
        with ExitStack() as opened:
            seed = page_seed(bytes.fromhex(record.record.session))
            listed = list(zip(hello.disks, config.disks, strict=True))
            bases = [
                _maybe_base(opened, number, info, wanted, seed, tick)
                for number, (info, wanted) in enumerate(listed)
            ]
            return _made(listed, bases, record, tick)

    return make


def _maybe_base(
    opened: ExitStack, number: int, info: DiskInfo, wanted: Disk, seed: int, tick: Tick
) -> Base | None:
    """The base of a disk that comes as what differs from one; GuestError where it is another one
    than the source's."""
    if info.base is None:
        return None
    if wanted.base is None:
        raise GuestError(f"disk {number} comes as what differs from a base: disks.{number}.base")
    fd = open_image(wanted.base, f"disks.{number}.base", os.O_RDONLY)
    opened.callback(os.close, fd)
    try:
        table = base_hashes(fd, info.pages, seed, tick)
    except OSError as error:
        raise GuestError(f"base {wanted.base} cannot be read: {error.strerror}") from None
    if table_digest(table) != info.base:
        raise GuestError(f"base {wanted.base} is not what the source has as base of the disk")
    return fd, table


def _made(
    listed: list[tuple[DiskInfo, Disk]],
    bases: list[Base | None],
    record: SessionRecord,
    tick: Tick,
) -> list[ArrivingDisk]:
    """Look at all of them, then change the first."""
    guest, made = record.record.guest, list[ArrivingDisk]()
    besides = set() if guest is None else {guest.pid}
    try:
        for number, (info, wanted) in enumerate(listed):
            make_place(wanted.there, record)
            made.append(ArrivingDisk(wanted.there, info, number, besides))
        for disk, base in zip(made, bases, strict=True):
            disk.fit()
            if base is not None:
                disk.fill(*base, tick)
    except BaseException:
        for disk in made:
            disk.close()
        raise
    return made


class Flushing:
    """Has disks written out while the guest still runs elsewhere, so that little is left after the
    stop; one at a time."""

    def __init__(self) -> None:
        self._thread: Thread | None = None

    def begin(self, disks: list[ArrivingDisk]) -> None:
        """In a thread of its own, if none is at it; what fails now is told when it matters."""
        if disks and (self._thread is None or not self._thread.is_alive()):
            self._thread = Thread(target=_flush, args=(list(disks),), daemon=True)
            self._thread.start()


def _flush(disks: list[ArrivingDisk]) -> None:
    for disk in disks:
        try:
            disk.flush()
        except (GuestError, OSError) as error:  # it may be closed meanwhile
            structlog.get_logger().debug(f"not flushed now: {error}")
