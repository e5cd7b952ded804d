"""Disks that move along with memory: raw images, each a block of pages behind the guest's own.

Knows nothing of what a disk holds. A file that is there is never made longer or shorter.
"""

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.extents import data_extents
from pipeline.guests.base import GuestBlock
from pipeline.guests.conversation import close_all
from pipeline.guests.memory import lock
from protocol.control import DiskInfo
from protocol.digest import table_digest
from protocol.errors import ConfigError, GuestError
from protocol.limits import PAGE_BYTES
from workers.memory import punch_hole
from workers.pages import HASH_PIECE_PAGES, ZERO_HASH, Hashes, PageBuffer


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
        lock(fd, path)
        base_fd = None if base is None else open_image(base, f"disks.{number}.base", os.O_RDONLY)
    except BaseException:
        os.close(fd)
        raise
    return LeavingDisk(path, GuestBlock(f"disk{number}", pages, fd), base_fd)


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

    def __init__(self, path: Path, info: DiskInfo, number: int) -> None:
        self.path = path
        fd = open_image(path, f"disks.{number}.destination", os.O_RDWR)
        try:
            lock(fd, path)
            _fit(path, fd, info.pages * PAGE_BYTES)
        except BaseException:
            os.close(fd)
            raise
        self.block = GuestBlock(f"disk{number}", info.pages, fd)
        self.base: Hashes | None = None

    def fill(self, base: Path, info: DiskInfo, number: int, seed: int) -> None:
        """Let it hold what `base` does; GuestError where that is not the base of the source."""
        base_fd = open_image(base, f"disks.{number}.base", os.O_RDONLY)
        try:
            if os.fstat(base_fd).st_ino == os.fstat(self.block.fd).st_ino:
                raise ConfigError(f"disks.{number}.destination: {self.path} is its own base")
            self.base = base_hashes(base_fd, self.block.pages, seed, lambda: None)
            if table_digest(self.base) != info.base:
                raise GuestError(f"base {base} is not what the source has as base of the disk")
            self._copy(base_fd)
        except OSError as error:
            raise GuestError(f"disk {self.path} cannot be written: {error.strerror}") from None
        finally:
            os.close(base_fd)

    def _copy(self, base_fd: int) -> None:
        punch_hole(self.block.fd, 0, self.block.pages * PAGE_BYTES)
        for first, count in data_extents(base_fd, self.block.pages):
            at, end = first * PAGE_BYTES, (first + count) * PAGE_BYTES
            os.lseek(self.block.fd, at, os.SEEK_SET)
            while at < end and (copied := os.sendfile(self.block.fd, base_fd, at, end - at)):
                at += copied

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
            self.block = GuestBlock(self.block.name, self.block.pages, -1)


def _fit(path: Path, fd: int, size: int) -> None:
    """Give a new file its size; GuestError for one that has another."""
    there = os.fstat(fd).st_size
    if there == 0:
        os.ftruncate(fd, size)
    elif there != size:
        raise GuestError(f"a disk of {size} bytes comes, {path} has {there}")
