"""Memory and descriptors that worker processes share with the process that started them."""

import ctypes
import fcntl
import mmap
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import reduction
from time import monotonic_ns, sleep
from typing import Any

import numpy as np
from numpy.typing import NDArray

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KEEP_SIZE, _PUNCH_HOLE = 1, 2

_LOOK_AGAIN_SECONDS = 0.0002

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]


def keep_large_allocations() -> None:
    """Let the allocator reuse buffers of up to 64 MiB instead of unmapping them.

    A fresh mapping of 256 KiB costs 64 page faults: measured, 12 % of the time of a
    raw transfer. No effect where the C library is not glibc.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, 64 << 20)
        mallopt(_M_TRIM_THRESHOLD, 128 << 20)


def check_descriptors(count: int) -> None:
    """OSError where this process may not open `count` more: some libraries end it then."""
    opened: list[int] = []
    try:
        opened.extend(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC) for _ in range(count))
    finally:
        for fd in opened:
            os.close(fd)


class PassedFd:
    """A descriptor that is handed to a worker process when it is started.

    The starter keeps its own; the worker owns a duplicate in `fd`.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __reduce__(self) -> tuple[Callable[[Any], "PassedFd"], tuple[Any]]:
        return _arrived_fd, (reduction.DupFd(self.fd),)


def _arrived_fd(duplicate: Any) -> PassedFd:  # noqa: ANN401 - private to multiprocessing
    return PassedFd(duplicate.detach())


def shared_memory(name: str, size_bytes: int) -> int:
    """The descriptor of a fresh, zeroed memory file, mode 0600, for those it is passed to.

    OSError where the system has no room for it.
    """
    fd = os.memfd_create(f"pageferry-{name}", os.MFD_CLOEXEC)
    try:
        os.ftruncate(fd, max(size_bytes, mmap.PAGESIZE))
        os.fchmod(fd, 0o600)
    except OSError:
        os.close(fd)
        raise
    return fd


def punch_hole(fd: int, start: int, count: int) -> None:
    """Deallocate `count` bytes from `start` on; the os module has no fallocate with a mode."""
    if _libc.fallocate(fd, _PUNCH_HOLE | _KEEP_SIZE, start, count):
        number = ctypes.get_errno()
        raise OSError(number, f"cannot punch a hole: {os.strerror(number)}")


@contextmanager
def record_lock(fd: int, within_ns: int, span: tuple[int, int] = (0, 0)) -> Iterator[bool]:
    """Hold the lock of a memory file, or of the bytes (first, count) of it, while the block takes.

    Whether it could be had `within_ns`: it is done without where its holder stands still. That of a
    process that dies is free.
    """
    first, count = span
    until_ns = monotonic_ns() + within_ns
    while not (locked := _lock(fd, first, count)) and monotonic_ns() < until_ns:
        sleep(_LOOK_AGAIN_SECONDS)
    try:
        yield locked
    finally:
        if locked:
            fcntl.lockf(fd, fcntl.LOCK_UN, count, first)


def _lock(fd: int, first: int, count: int) -> bool:
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, count, first)
    except BlockingIOError:
        return False
    return True


def mapped_bytes(fd: int) -> NDArray[np.uint8]:
    """The whole memory file `fd`, mapped shared and writable, as uint8 of shape (bytes,)."""
    return np.frombuffer(mmap.mmap(fd, 0), np.uint8)


def split_blocks(
    flat: NDArray[np.uint64], block_pages: tuple[int, ...]
) -> list[NDArray[np.uint64]]:
    """Views of `flat`, one of shape (pages,) for each block in turn."""
    ends = np.cumsum(block_pages)
    return [flat[end - pages : end] for end, pages in zip(ends, block_pages, strict=True)]


def page_hashes(fd: int, block_pages: tuple[int, ...]) -> list[NDArray[np.uint64]]:
    """The hash table in memory file `fd`: 8 bytes a page, block after block."""
    return split_blocks(mapped_bytes(fd)[: sum(block_pages) * 8].view(np.uint64), block_pages)


def maybe_page_hashes(
    passed: PassedFd | None, block_pages: tuple[int, ...]
) -> list[NDArray[np.uint64]] | None:
    """The hash table that a worker was handed, if it was handed one."""
    return None if passed is None else page_hashes(passed.fd, block_pages)
