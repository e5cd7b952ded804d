"""Memory files: how they are made, and the RAM of a guest process in one.

Owns the rule that a file which some process has mapped is never truncated. Read and
write by descriptor, not through the mapping: reading a hole that way allocates nothing.
"""

import fcntl
import mmap
import os
import stat
from contextlib import suppress
from pathlib import Path

import numpy as np

from pipeline.file_users import users_of
from pipeline.guests.content import PAGE_WORDS, Words
from pipeline.records.record import MadeFile
from protocol.errors import ConfigError, GuestError
from protocol.limits import PAGE_BYTES
from workers.memory import shared_memory
from workers.pages import runs


def anonymous_memory(size_bytes: int) -> int:
    """The descriptor of a new memory file without a name, mode 0600; the caller's."""
    try:
        return shared_memory("memory", size_bytes)
    except OSError as error:
        raise GuestError(f"memory of {size_bytes} bytes: {error.strerror}") from None


def make_file(path: Path) -> MadeFile | None:
    """Make `path`, empty, for memory to land in; None where it is there.

    ConfigError where it cannot be.
    """
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return None
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from None
    status = os.fstat(fd)
    os.close(fd)
    return MadeFile(os.path.realpath(path), status.st_dev, status.st_ino)


def remove_file(made: MadeFile) -> None:
    """Undo `make_file`, unless another file has taken the place."""
    with suppress(OSError):
        if _is_there(made, made.path):
            Path(made.path).unlink()


def was_made_at(made: MadeFile, path: Path) -> bool:
    """Whether `path`, by whatever name, is where `made` was made, or where it is now."""
    place = os.path.realpath(path)
    try:
        return place == made.path or _is_there(made, place)
    except OSError:
        return False


def _is_there(made: MadeFile, place: str) -> bool:
    status = os.lstat(place)
    return (status.st_dev, status.st_ino) == (made.device, made.inode)


def named_memory(path: Path, size_bytes: int, *, cleared: bool) -> int:
    """A descriptor of the file `path`, made `size_bytes` long; the caller's.

    `cleared`: nothing of what it held is kept. ConfigError when it cannot be written, is
    no file, or would have to be truncated while some process has it mapped.
    """
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from None
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise ConfigError(f"{path} is not a file that memory can land in")
        lock(fd, path)
        if cleared or status.st_size != size_bytes:
            _refuse_if_mapped(path, fd, size_bytes)
            os.ftruncate(fd, 0 if cleared else size_bytes)
            os.ftruncate(fd, size_bytes)
    except (OSError, ConfigError) as error:
        os.close(fd)
        if isinstance(error, OSError):
            raise ConfigError(f"{path}: {size_bytes} bytes: {error.strerror}") from None
        raise
    return fd


def leads_to(path: Path, fd: int) -> bool:
    """Whether the open file `fd` is the one at `path`."""
    with suppress(OSError):
        return os.path.samestat(path.stat(), os.fstat(fd))
    return False


def lock(fd: int, path: Path, *, shared: bool = False) -> None:
    """Keep others from moving the memory in this file, for as long as it is open anywhere;
    `shared`: from filling it alone.

    ConfigError where somebody does already.
    """
    try:
        fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ConfigError(
            f"{path} is locked: another migration moves it, or a guest lives there"
        ) from None


def _refuse_if_mapped(path: Path, fd: int, size_bytes: int) -> None:
    mapping = [user.pid for user in users_of(fd) if user.mapped]
    if mapping:
        raise ConfigError(
            f"{path} has {os.fstat(fd).st_size} bytes, memory of {size_bytes} is to land in it, and"
            f" process {mapping[0]} has it mapped: such a file is never truncated"
        )


class GuestMemory:
    """The RAM of a guest process: `pages` pages from offset 0 of `fd`, mapped shared.

    `words` is the mapping as (pages, 512) uint64, `address` where it lies. `fd` stays the
    caller's; the mapping goes with the last view of it.
    """

    def __init__(self, fd: int, pages: int) -> None:
        self.fd = fd
        self.pages = pages
        mapping = mmap.mmap(fd, pages * PAGE_BYTES)
        self.words: Words = np.frombuffer(mapping, np.uint64).reshape(pages, PAGE_WORDS)
        self.address = self.words.ctypes.data

    def read(self, first_page: int, out: Words) -> None:
        """Copy the pages from `first_page` on into the rows of `out`; holes stay holes."""
        got = os.preadv(self.fd, [out.reshape(-1).view(np.uint8).data], first_page * PAGE_BYTES)
        if got != out.nbytes:
            raise GuestError(f"{got} of {out.nbytes} bytes of guest memory at page {first_page}")

    def write(self, first_page: int, pages: Words) -> None:
        """Write the rows of `pages` that are not zero from `first_page` on."""
        found = np.flatnonzero(pages.any(axis=1)).astype(np.uint32)
        for start, end in runs(found):
            rows = pages[found[start] : found[end - 1] + 1]
            data = rows.reshape(-1).view(np.uint8).data
            os.pwrite(self.fd, data, (first_page + int(found[start])) * PAGE_BYTES)
