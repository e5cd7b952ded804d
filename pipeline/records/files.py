"""Small files: put there whole or not at all; read without waiting, whoever has put them there."""

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from protocol.errors import MigrationError

MOST_BYTES = 1 << 20
"""A record takes some hundred bytes a line, a line a step or effect."""


_UNFINISHED = ".new"


def place(path: Path, data: bytes) -> int:
    """Make the file `path` of `data`, whole and flushed before it has its name; a descriptor to
    append to it. OSError where that cannot be, or there is one already."""
    new = path.with_suffix(f".{os.getpid()}{_UNFINISHED}")
    fd = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        write(fd, data)
        os.link(new, path)
    except BaseException:
        os.close(fd)
        raise
    finally:
        new.unlink()
    return fd


def unfinished(folder: Path) -> Iterator[Path]:
    """What processes that are dead were about to `place` in `folder`."""
    for path in folder.glob(f"*.*{_UNFINISHED}"):
        pid = path.stem.rpartition(".")[2]
        if pid.isdecimal() and not Path("/proc", pid).exists():
            yield path


def write(fd: int, data: bytes) -> None:
    """All of `data`, flushed; OSError where that cannot be."""
    if os.write(fd, data) != len(data):
        raise OSError(errno.ENOSPC, "no room for a whole record")
    os.fdatasync(fd)


def content(fd: int, where: str, most_bytes: int = MOST_BYTES) -> bytes:
    """All of an open file; MigrationError where it is none, or longer than what we write."""
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        raise MigrationError(f"{where} cannot be read: it is no file")
    if status.st_size > most_bytes:
        raise MigrationError(f"{where} cannot be read: it has {status.st_size} bytes")
    return os.pread(fd, status.st_size, 0)


def read_small(path: Path) -> bytes:
    """All of the file `path`, as `content`; OSError where it cannot be opened."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        return content(fd, str(path))
    finally:
        os.close(fd)
