"""The kernel's asynchronous write-protection: register a mapping, ask what was written.

Owns the layouts and numbers of the userfaultfd and PAGEMAP_SCAN interfaces (Linux 6.7
and later). Knows neither guests nor rounds. Invariant: a page written after a scan
began is reported by that scan or by the next one.
"""

import ctypes
import errno
import fcntl
import mmap
import os
import platform
import select
import struct
from collections.abc import Iterable
from contextlib import suppress
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from protocol.limits import PAGE_BYTES

_SYSCALLS = {"x86_64": 323, "aarch64": 282, "riscv64": 282}
_USER_MODE_ONLY = 1
_UFFD_API = 0xAA
_WP_HUGETLBFS_SHMEM = 1 << 12
_WP_UNPOPULATED = 1 << 13
_WP_ASYNC = 1 << 15
_REGISTER_MODE_WP = 2
_PAGE_IS_WRITTEN = 1 << 1
_SCAN_WP_MATCHING = 1 << 0
_SCAN_CHECK_WPASYNC = 1 << 1

_REGIONS = 4096
"""Regions an ioctl: 96 KiB of buffer; 1 GiB with every second page written takes 32 calls."""

_PIECE_BYTES = 64 << 20
"""The process that is tracked cannot fault a page in meanwhile: measured, 20 ms a GiB."""

_LIBC = ctypes.CDLL(None, use_errno=True)
_Fields = list[tuple[str, type[ctypes.c_uint64]]]


def _words(*names: str) -> _Fields:
    return [(name, ctypes.c_uint64) for name in names]


class _Api(ctypes.Structure):
    _fields_: ClassVar[_Fields] = _words("api", "features", "ioctls")


class _Register(ctypes.Structure):
    _fields_: ClassVar[_Fields] = _words("start", "length", "mode", "ioctls")


class _Scan(ctypes.Structure):
    _fields_: ClassVar[_Fields] = _words(
        "size", "flags", "start", "end", "walk_end", "regions", "regions_length", "max_pages",
        "category_inverted", "category_mask", "category_any", "return_mask",
    )  # fmt: skip


def _read_write(group: int, number: int, argument: type[ctypes.Structure]) -> int:
    return 3 << 30 | ctypes.sizeof(argument) << 16 | group << 8 | number


_UFFDIO_API = _read_write(_UFFD_API, 0x3F, _Api)
_UFFDIO_REGISTER = _read_write(_UFFD_API, 0x00, _Register)
_UFFDIO_UNREGISTER = 2 << 30 | 16 << 16 | _UFFD_API << 8 | 0x01
_PAGEMAP_SCAN = _read_write(ord("f"), 16, _Scan)


def register(address: int, length: int) -> int:
    """Write-protect `length` bytes from `address` of this process, asynchronously.

    Answers the userfaultfd: the caller's, and closing it ends the registration.
    OSError where the kernel refuses.
    """
    fd = _userfaultfd()
    try:
        protect(fd, [(address, length)])
    except OSError:
        os.close(fd)
        raise
    return fd


def protect(fd: int, ranges: Iterable[tuple[int, int]]) -> None:
    """Write-protect each (address, length) of the process that opened the userfaultfd `fd`.

    `fd` is new, and stays the caller's, who need not be that process. OSError where the kernel
    refuses.
    """
    features = _WP_ASYNC | _WP_UNPOPULATED | _WP_HUGETLBFS_SHMEM
    fcntl.ioctl(fd, _UFFDIO_API, _Api(_UFFD_API, features))
    for address, length in ranges:
        fcntl.ioctl(fd, _UFFDIO_REGISTER, _Register(address, length, _REGISTER_MODE_WP))


def unprotect(fd: int, ranges: Iterable[tuple[int, int]]) -> None:
    """Undo `protect` piece by piece; closing `fd` does it at once for what is left."""
    with suppress(OSError):  # it is gone, or of huge pages that are larger than a piece
        for address, length in ranges:
            end = address + length
            for start in range(address, end, _PIECE_BYTES):
                piece = struct.pack("QQ", start, min(_PIECE_BYTES, end - start))
                fcntl.ioctl(fd, _UFFDIO_UNREGISTER, piece)


def _userfaultfd() -> int:
    number = _SYSCALLS.get(platform.machine())
    if number is None:
        raise OSError(errno.ENOSYS, f"no userfaultfd on {platform.machine()}")
    fd: int = _LIBC.syscall(number, os.O_CLOEXEC | _USER_MODE_ONLY)
    if fd < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"userfaultfd: {os.strerror(code)}")
    return fd


class WrittenScan:
    """Asks which of `pages` pages from `address` of process `pid` were written.

    The mapping must be registered. Owns its descriptors and one buffer of regions.
    """

    def __init__(self, pid: int, address: int, pages: int) -> None:
        self._pid = pid
        self._start = address
        self._regions = np.zeros((_REGIONS, 3), np.uint64)
        self._argument = _Scan(
            size=ctypes.sizeof(_Scan),
            flags=_SCAN_WP_MATCHING | _SCAN_CHECK_WPASYNC,
            end=address + pages * PAGE_BYTES,
            regions=self._regions.ctypes.data,
            regions_length=_REGIONS,
            category_mask=_PAGE_IS_WRITTEN,
            return_mask=_PAGE_IS_WRITTEN,
        )
        self._process = os.pidfd_open(pid)
        try:
            self._pagemap = os.open(f"/proc/{pid}/pagemap", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            os.close(self._process)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def scan(self) -> NDArray[np.uint32]:
        """Indices of the pages written since the last scan, ascending; their marks are cleared.

        The first scan also reports what was never protected. OSError where the kernel
        refuses, ProcessLookupError when the process is gone: a dead one looks unwritten.
        """
        argument = self._argument
        pieces = []
        argument.walk_end = self._start
        while argument.walk_end < argument.end:
            argument.start = argument.walk_end
            try:
                count = fcntl.ioctl(self._pagemap, _PAGEMAP_SCAN, argument)
            except ProcessLookupError:
                raise self._ended() from None
            pieces.append(self._expand(self._regions[:count]))
        if _has_ended(self._process):
            raise self._ended()
        return np.concatenate(pieces)

    def _ended(self) -> ProcessLookupError:
        return ProcessLookupError(errno.ESRCH, f"process {self._pid} ended")

    def close(self) -> None:
        """Close the descriptors. Idempotent."""
        for name in ("_pagemap", "_process"):
            fd = getattr(self, name)
            if fd >= 0:
                os.close(fd)
                setattr(self, name, -1)

    def _expand(self, regions: NDArray[np.uint64]) -> NDArray[np.uint32]:
        bounds = (regions[:, :2] - np.uint64(self._start)) // np.uint64(PAGE_BYTES)
        first, end = bounds.astype(np.int64).T
        lengths = end - first
        before = np.cumsum(lengths) - lengths
        return (np.repeat(first - before, lengths) + np.arange(lengths.sum())).astype(np.uint32)


def _has_ended(pidfd: int) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


def probe() -> str | None:
    """Why pages cannot be tracked this way on this machine; None: they can.

    Tried out on a small memory file of this process.
    """
    memory = os.memfd_create("pageferry-probe", os.MFD_CLOEXEC)
    try:
        os.ftruncate(memory, 4 * PAGE_BYTES)
        return _try_out(mmap.mmap(memory, 4 * PAGE_BYTES))
    except OSError as error:
        return f"the kernel refuses asynchronous write-protection (Linux 6.7 has it): {error}"
    finally:
        os.close(memory)


def _try_out(mapping: mmap.mmap) -> str | None:
    words = np.frombuffer(mapping, np.uint8)
    address = words.ctypes.data
    registration = register(address, words.nbytes)
    try:
        with WrittenScan(os.getpid(), address, words.size // PAGE_BYTES) as scan:
            scan.scan()
            mapping[2 * PAGE_BYTES] = 1
            found = scan.scan().tolist()
    finally:
        os.close(registration)
    return None if found == [2] else f"page 2 was written, the kernel reports {found}"
