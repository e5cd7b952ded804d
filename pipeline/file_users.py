"""Who has a file, by device and inode: where processes have it mapped, and which have it open.

Looks only, by /proc, and as far as we may: what belongs to another user stays unseen.
"""

import mmap
import os
import re
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import IntEnum
from pathlib import Path

import numpy as np

_MAP_NORESERVE = 0x4000
"""Of huge pages none is set aside for a look."""
_MAPPING = re.compile(
    rb"^([0-9a-f]+)-([0-9a-f]+) .(.).(.) ([0-9a-f]+) (\S+ \d+)(?: |$)", re.MULTILINE
)


@dataclass(frozen=True)
class FileMapping:
    """`length` bytes of a file from `offset` on, mapped at `address`."""

    address: int
    length: int
    offset: int
    shared: bool
    writable: bool


class Access(IntEnum):
    """The most that a process may do to a file by a descriptor, or by a mapping."""

    NONE = 0
    READ = 1
    WRITE = 2


@dataclass(frozen=True)
class FileUser:
    """A process that has a file open, or mapped."""

    pid: int
    opened: Access
    mapped: Access

    @property
    def can_write(self) -> bool:
        """Whether it may write to it, by one or the other."""
        return Access.WRITE in (self.opened, self.mapped)


def mappings_of(pid: int, fd: int) -> list[FileMapping]:
    """Where process `pid` has the file of our `fd` mapped, rising by address.

    What lies in one piece is one, even where the kernel has it in several of the same kind.
    OSError where the process is gone or not ours to look at.
    """
    joined: list[FileMapping] = []
    for found in _mappings(Path(f"/proc/{pid}/maps").read_bytes(), _name_in_maps(fd)):
        if joined and _continues(joined[-1], found):
            joined[-1] = replace(joined[-1], length=joined[-1].length + found.length)
        else:
            joined.append(found)
    return joined


def is_covered(mappings: list[FileMapping], size_bytes: int) -> bool:
    """Whether every one of the first `size_bytes` bytes of the file is in a shared mapping."""
    end = 0
    for mapping in sorted(mappings, key=lambda mapping: mapping.offset):
        if mapping.shared and mapping.offset <= end:
            end = max(end, mapping.offset + mapping.length)
    return end >= size_bytes


def users_of(fd: int, besides: Collection[int] = ()) -> list[FileUser]:
    """The processes that have the file of our `fd` open or mapped, but for those in `besides`."""
    name, status = _name_in_maps(fd), os.fstat(fd)
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it ended meanwhile, or belongs to somebody else
            if int(folder.name) not in besides and (user := _maybe_user(folder, name, status)):
                found.append(user)
    return sorted(found, key=lambda user: user.pid)


def sees_everybody() -> bool:
    """Whether we may look at every process here: what others have open is not known."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            next((folder / "fd").iterdir(), None)
        except PermissionError:
            return False
        except OSError:  # it ended meanwhile
            continue
    return True


def _maybe_user(folder: Path, name: bytes, status: os.stat_result) -> FileUser | None:
    mapped = (
        Access.WRITE if mapping.shared and mapping.writable else Access.READ
        for mapping in _mappings((folder / "maps").read_bytes(), name)
    )
    user = FileUser(
        int(folder.name),
        opened=max(_opened(folder, status), default=Access.NONE),
        mapped=max(mapped, default=Access.NONE),
    )
    return user if user.opened or user.mapped else None


def _opened(folder: Path, status: os.stat_result) -> Iterator[Access]:
    """How each descriptor for that file is open; only what may be it is looked at."""
    for info in (folder / "fdinfo").iterdir():
        with suppress(OSError):
            fields = dict(line.split(":", 1) for line in info.read_text().splitlines()[:4])
            if int(fields.get("ino", status.st_ino)) != status.st_ino:
                continue
            found = (folder / "fd" / info.name).stat()
            if (found.st_dev, found.st_ino) == (status.st_dev, status.st_ino):
                yield Access.WRITE if int(fields["flags"], 8) & os.O_ACCMODE else Access.READ


def _mappings(maps: bytes, name: bytes) -> Iterator[FileMapping]:
    for first, last, writes, shares, offset, found in _MAPPING.findall(maps):
        if found == name:
            start, end = int(first, 16), int(last, 16)
            yield FileMapping(start, end - start, int(offset, 16), shares == b"s", writes == b"w")


def _continues(first: FileMapping, second: FileMapping) -> bool:
    return second == replace(
        first,
        address=first.address + first.length,
        offset=first.offset + first.length,
        length=second.length,
    )


def _name_in_maps(fd: int) -> bytes:
    """Device and inode as maps shows them, which some file systems number differently than stat.

    So a page of the file is mapped here, and looked for; where it cannot be, stat has to do.
    """
    status = os.fstat(fd)
    try:
        flags = mmap.MAP_SHARED | _MAP_NORESERVE
        with mmap.mmap(fd, min(status.st_blksize, status.st_size), flags, mmap.PROT_READ) as page:
            return _name_at(np.frombuffer(page, np.uint8).ctypes.data)
    except (OSError, ValueError):
        major, minor = os.major(status.st_dev), os.minor(status.st_dev)
        return f"{major:02x}:{minor:02x} {status.st_ino}".encode()


def _name_at(address: int) -> bytes:
    found = _MAPPING.findall(Path("/proc/self/maps").read_bytes())
    return next(name for first, *_, name in found if int(first, 16) == address)
