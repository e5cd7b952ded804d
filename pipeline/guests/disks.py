"""Disks that move along with memory: raw images, each a block of pages behind the guest's own.

Knows nothing of what a disk holds. A file that is there keeps its size, but for an empty one.
"""

import errno
import os
import shutil
import stat
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import structlog

from pipeline.extents import data_extents
from pipeline.file_users import users_of
from pipeline.guests.base import GuestBlock
from pipeline.guests.conversation import close_all
from pipeline.guests.memory import leads_to, lock
from protocol.control import DiskInfo
from protocol.errors import ConfigError, GuestError
from protocol.limits import PAGE_BYTES
from workers.memory import punch_hole
from workers.pages import HASH_PIECE_PAGES, ZERO_HASH, Hashes, PageBuffer

COPY_BYTES = 16 << 20
"""Copied between two looks at whether it is still wanted."""
QCOW_MAGIC = b"QFI\xfb"


@dataclass(frozen=True)
class LeavingDisk:
    """At the source: the disk, and the base that the other end has, too, where there is one."""

    path: Path
    block: GuestBlock
    base_fd: int | None = None

    def check_size(self) -> None:
        """GuestError where it has another size than at the beginning."""
        size, began = os.fstat(self.block.fd).st_size, self.block.pages * PAGE_BYTES
        if size != began:
            raise GuestError(
                f"disk {self.path} had {began} bytes and has {size}: only images that keep their"
                " size move (raw ones)"
            )


def open_disk(number: int, path: Path, base: Path | None) -> LeavingDisk:
    """The disk that is listed at `number`, to read; ConfigError where it cannot be had."""
    fd = open_image(path, f"disks.{number}.path", os.O_RDONLY)
    try:
        pages = _pages(path, fd, f"disks.{number}.path")
        lock(fd, path, shared=True)
        base_fd = None if base is None else open_image(base, f"disks.{number}.base", os.O_RDONLY)
        if base_fd is not None and os.fstat(base_fd).st_size < pages * PAGE_BYTES:
            structlog.get_logger().warning(
                f"disks.{number}.base: {base} has {os.fstat(base_fd).st_size} bytes, the disk"
                f" {pages * PAGE_BYTES}: what is behind its end moves whole"
            )
    except BaseException:
        os.close(fd)
        raise
    return LeavingDisk(path, _block(number, path, pages, fd), base_fd)


def _block(number: int, path: Path, pages: int, fd: int) -> GuestBlock:
    return GuestBlock(f"disk{number}", pages, fd, f"disk {path}")


def close_disks(disks: list[LeavingDisk]) -> None:
    """Let go of them. Idempotent."""
    while disks:
        disk = disks.pop()
        close_all([disk.block.fd, *([] if disk.base_fd is None else [disk.base_fd])])


def open_image(path: Path, key: str, flags: int) -> int:
    """A descriptor of an image; ConfigError, which names `key`, where it is no regular file."""
    try:
        fd = os.open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise ConfigError(f"{key}: {path} cannot be opened: {error.strerror}") from None
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise ConfigError(f"{key}: {path} is not a regular file")
    return fd


def _pages(path: Path, fd: int, key: str) -> int:
    if os.pread(fd, len(QCOW_MAGIC), 0) == QCOW_MAGIC:
        raise ConfigError(f"{key}: {path} is a qcow2 image, which grows: only raw ones move")
    pages, odd = divmod(os.fstat(fd).st_size, PAGE_BYTES)
    if odd or not pages:
        raise ConfigError(
            f"{key}: {path} has {os.fstat(fd).st_size} bytes, expected a multiple of {PAGE_BYTES},"
            " not 0"
        )
    return pages


def base_hashes(fd: int, pages: int, seed: int, tick: Callable[[], object]) -> Hashes:
    """The hashes of the first `pages` pages of a base, uint64 of shape (pages,); what it has not is
    zeros. `tick` is called now and then."""
    table: Hashes = np.full(pages, ZERO_HASH, np.uint64)
    buffer = PageBuffer(HASH_PIECE_PAGES, seed=seed)
    there = min(pages, -(-os.fstat(fd).st_size // PAGE_BYTES))
    for first in range(0, there, HASH_PIECE_PAGES):
        count = min(HASH_PIECE_PAGES, there - first)
        piece = buffer.bytes[: count * PAGE_BYTES]
        got = os.preadv(fd, [piece], first * PAGE_BYTES)
        piece[got:] = bytes(len(piece) - got)
        table[first : first + count] = buffer.hashes(count)
        tick()
    return table


class ArrivingDisk:
    """At the destination: an image that a disk lands in. `base` is the table of hashes of what it
    holds already, None without a base."""

    def __init__(self, path: Path, info: DiskInfo, number: int, besides: set[int]) -> None:
        """Looks, and changes nothing. GuestError where it has another size, or a process that is
        not among `besides` can write to it."""
        self.path = path
        fd = open_image(path, f"disks.{number}.destination", os.O_RDWR)
        try:
            lock(fd, path)
            self._size = info.pages * PAGE_BYTES
            self.block = _block(number, path, info.pages, fd)
            _refuse_users(path, fd, besides)
            self._check_size(0, self._size)
        except BaseException:
            os.close(fd)
            raise
        self.base: Hashes | None = None

    def _check_size(self, *sizes: int) -> None:
        there = os.fstat(self.block.fd).st_size
        if there not in sizes:
            raise GuestError(f"a disk of {self._size} bytes comes, {self.path} has {there}")

    def fit(self) -> None:
        """Give a new file its size; GuestError where it cannot have that."""
        try:
            if shutil.disk_usage(self.path.parent).total < self._size:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.truncate(self.block.fd, self._size)
        except OSError as error:
            raise GuestError(f"disk {self.path}: {self._size} bytes: {error.strerror}") from None

    def check_place(self) -> None:
        """GuestError where its path leads to something else now, or it is not as it was made."""
        self._check_size(self._size)
        if not leads_to(self.path, self.block.fd):
            raise GuestError(f"disk {self.path} is not the file any more that the disk has come to")

    def fill(self, base_fd: int, base: Hashes, tick: Callable[[], object]) -> None:
        """Let it hold what the base does, whose hashes are `base`; `tick` is called now and then.
        GuestError where it cannot be written."""
        self.base = base
        try:
            self._copy(base_fd, tick)
        except OSError as error:
            raise GuestError(f"disk {self.path} cannot be written: {error.strerror}") from None

    def _copy(self, base_fd: int, tick: Callable[[], object]) -> None:
        punch_hole(self.block.fd, 0, self.block.pages * PAGE_BYTES)
        for first, count in data_extents(base_fd, self.block.pages):
            at, end = first * PAGE_BYTES, (first + count) * PAGE_BYTES
            os.lseek(self.block.fd, at, os.SEEK_SET)
            while at < end:
                piece = min(COPY_BYTES, end - at)
                at += os.sendfile(self.block.fd, base_fd, at, piece) or end - at
                tick()

    def flush(self) -> None:
        """Have the system write out what it has of it; GuestError where that fails."""
        try:
            os.fdatasync(self.block.fd)
        except OSError as error:
            raise GuestError(f"disk {self.path} cannot be written: {error.strerror}") from None

    def close(self) -> None:
        """Let go of it. Idempotent."""
        if self.block.fd >= 0:
            os.close(self.block.fd)
            self.block = replace(self.block, fd=-1)


def _refuse_users(path: Path, fd: int, besides: set[int]) -> None:
    """What is written over must be nobody's, and no device of the kernel."""
    for device in Path("/sys/block").glob("loop*/loop/backing_file"):
        with suppress(OSError):
            if os.path.samestat(Path(device.read_text().rstrip("\n")).stat(), os.fstat(fd)):
                raise GuestError(f"{device.parts[3]} has {path}: it is in use")
    for user in users_of(fd, {os.getpid(), *besides}):
        if user.can_write:
            raise GuestError(f"process {user.pid} can write to {path}: it is in use")
