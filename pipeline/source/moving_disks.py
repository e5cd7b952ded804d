"""The disks of one migration at its source: which blocks they are, and what was written to them.

Between rounds a disk is looked at where the file system says that it was written; after the stop
all of it is, as all memory is: a time may be coarse, and a mapping tells of itself late.
"""

import os
from collections.abc import Callable

from pipeline.file_users import Access, users_of
from pipeline.guests.disks import LeavingDisk, base_hashes, close_disks
from pipeline.records.processes import Process
from protocol.control import DiskInfo
from protocol.digest import table_digest
from protocol.errors import GuestError
from workers.pages import Hashes


class MovingDisks:
    """Blocks from number `first` on. Owns the descriptors."""

    def __init__(self, disks: list[LeavingDisk], first: int) -> None:
        self._disks = disks
        self.first = first
        self.blocks = [disk.block for disk in disks]
        self.bases: dict[int, Hashes] = {}
        """By block number: the hashes of what the destination has before anything is sent."""
        self._times_ns = [(0, 0)] * len(disks)

    @property
    def pages(self) -> int:
        """Of all of them."""
        return sum(block.pages for block in self.blocks)

    def infos(self, seed: int, tick: Callable[[], object]) -> list[DiskInfo]:
        """What the destination has to know; reads all bases, and calls `tick` meanwhile."""
        made = []
        for number, disk in enumerate(self._disks, self.first):
            digest = None
            if disk.base_fd is not None:
                self.bases[number] = base_hashes(disk.base_fd, disk.block.pages, seed, tick)
                digest = table_digest(self.bases[number])
            made.append(DiskInfo(disk.block.pages, digest))
        return made

    def written(self) -> list[int]:
        """The numbers of those that were written since this was asked last, by their times."""
        found = [os.fstat(block.fd) for block in self.blocks]
        now_ns = [(status.st_mtime_ns, status.st_ctime_ns) for status in found]
        before_ns, self._times_ns = self._times_ns, now_ns
        times = enumerate(zip(before_ns, now_ns, strict=True), self.first)
        return [number for number, (before, now) in times if before != now]

    def check_alone(self, guest: Process | None) -> None:
        """GuestError where a process besides the guest's has one mapped to write to it: what it
        writes is not seen by a file's times."""
        besides = {os.getpid(), *([] if guest is None else [guest.pid])}
        for disk in self._disks:
            for user in users_of(disk.block.fd, besides):
                if user.mapped is Access.WRITE:
                    raise GuestError(
                        f"process {user.pid} has disk {disk.path} mapped for writing, and would not"
                        " be stopped"
                    )

    def guest_stands(self) -> None:
        """From now on nobody writes to them."""
        self.written()

    def check_untouched(self) -> None:
        """GuestError where one has another size, or was written since the guest stands still."""
        for disk in self._disks:
            disk.check_size()
        for number in self.written():
            path = self._disks[number - self.first].path
            raise GuestError(f"disk {path} was written while the guest stood still")

    def close(self) -> None:
        """Let go of them. Idempotent."""
        close_disks(self._disks)
