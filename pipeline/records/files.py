"""Small files that anybody may have put there: read without waiting, and without end."""

import os
import stat
from pathlib import Path

from protocol.errors import MigrationError

MOST_BYTES = 1 << 20
"""A record takes some hundred bytes a line, a line a step or effect."""


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
