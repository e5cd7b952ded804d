"""The memory of a QEMU: which blocks it has, and the file that each of them is."""

import os
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pipeline.file_users import FileMapping, is_covered, mappings_of
from pipeline.guests.base import GuestBlock
from pipeline.guests.qemu.answers import Property
from pipeline.guests.qemu.monitor import QemuMonitor
from protocol.errors import NoSuchGuest
from protocol.limits import PAGE_BYTES

FILE_BACKEND = "memory-backend-file"
BACKEND_PREFIX = "memory-backend-"
_STAT_BLOCK_BYTES = 512
_HUGE_BYTES = 2 << 20
"""The smallest unit of a hugetlbfs; ordinary file systems have 1 MiB at most."""

T = TypeVar("T")


@dataclass(frozen=True)
class Backend:
    """A memory object of a QEMU: its id, type and size, whether it is shared, the path it names."""

    name: str
    kind: str
    size_bytes: int
    shared: bool
    path: str

    def obstacle(self) -> str | None:
        """Why it cannot be read, or filled, from outside; None where it can."""
        if self.kind != FILE_BACKEND:
            return f"memory {self.name} is a {self.kind}, not a {FILE_BACKEND}"
        if not self.shared:
            return f"memory {self.name} is not shared: share=on"
        if self.size_bytes % PAGE_BYTES:
            return f"memory {self.name} has {self.size_bytes} bytes, no multiple of {PAGE_BYTES}"
        return None


def backends(monitor: QemuMonitor) -> list[Backend]:
    """All memory objects, by name."""
    listed = monitor.query(list[Property], "qom-list", path="/objects")
    found = [(one.name, one.type.removeprefix("child<").removesuffix(">")) for one in listed]
    return sorted(
        (_backend(monitor, name, kind) for name, kind in found if kind.startswith(BACKEND_PREFIX)),
        key=lambda backend: backend.name,
    )


def _backend(monitor: QemuMonitor, name: str, kind: str) -> Backend:
    def get(of: type[T], key: str) -> T:
        return monitor.query(of, "qom-get", path=f"/objects/{name}", property=key)

    path = get(str, "mem-path") if kind == FILE_BACKEND else ""
    return Backend(name, kind, get(int, "size"), get(bool, "share"), path)


def why_hidden(pid: int) -> str | None:
    """Why /proc does not say which files a process has mapped; None where it does."""
    try:
        Path(f"/proc/{pid}/maps").open("rb").close()
    except OSError as error:
        return (
            f"process {pid} does not show its memory ({error.strerror}): run this as its user, or"
            " with CAP_SYS_PTRACE"
        )
    return None


def open_block(backend: Backend, pid: int, *, writable: bool) -> GuestBlock:
    """The file of a backend that has no obstacle; the descriptor is the caller's.

    Its path may be a folder, or of a file that was removed: what counts is what the process has
    mapped, for writing where we are to write for it. NoSuchGuest where that cannot be had.
    """
    flags = (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC | os.O_NONBLOCK
    for path in [Path(backend.path), *_descriptors(pid, backend)]:
        try:
            fd = os.open(path, flags)
        except OSError:
            continue
        is_whole = os.fstat(fd).st_size >= backend.size_bytes
        if is_whole and _is_all_mapped(pid, fd, backend, writable=writable):
            return GuestBlock(backend.name, backend.size_bytes // PAGE_BYTES, fd)
        os.close(fd)
    raise NoSuchGuest(
        f"memory {backend.name}: the file {backend.path} that process {pid} has mapped cannot be"
        " opened"
    )


def why_no_room(blocks: Sequence[GuestBlock]) -> str | None:
    """Why the file systems have no room for all of `blocks`, which a guest may write into any
    hole of; None where they have, or do not tell."""
    missing: Counter[int] = Counter()
    for block in blocks:
        status, system = os.fstat(block.fd), os.fstatvfs(block.fd)
        if system.f_frsize >= _HUGE_BYTES:
            continue  # QEMU has reserved huge pages when it mapped them
        taken = status.st_blocks * _STAT_BLOCK_BYTES
        missing[status.st_dev] += max(0, block.pages * PAGE_BYTES - taken)
        room = system.f_bavail * system.f_frsize
        if system.f_blocks and missing[status.st_dev] > room:
            return (
                f"no room for memory {block.name}: {missing[status.st_dev]} bytes of it are not"
                f" allocated yet, its file system has {room} left"
            )
    return None


def whole_mapping(pid: int, block: GuestBlock) -> FileMapping | None:
    """Where a process has the whole block mapped in one piece; None where it has not."""
    size_bytes = block.pages * PAGE_BYTES
    for mapping in mappings_of(pid, block.fd):
        if mapping.shared and mapping.offset == 0 and mapping.length >= size_bytes:
            return mapping
    return None


def _is_all_mapped(pid: int, fd: int, backend: Backend, *, writable: bool) -> bool:
    with suppress(OSError):  # it has just ended
        mappings = [one for one in mappings_of(pid, fd) if one.writable or not writable]
        return is_covered(mappings, backend.size_bytes)
    return False


def _descriptors(pid: int, backend: Backend) -> list[Path]:
    """What the process has open that is the backend's file."""
    found = []
    with suppress(OSError):
        for path in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                if is_file_of(backend, str(path.readlink())):
                    found.append(path)
    return found


def is_file_of(backend: Backend, link: str) -> bool:
    """Whether what /proc tells of a descriptor is the file of a backend: the one at its path,
    removed perhaps, or, in the folder that the path is, one that QEMU has named after it."""
    name = link.removesuffix(" (deleted)")
    if name == backend.path:
        return True
    made = name.removeprefix(f"{backend.path.rstrip('/')}/qemu_back_mem.")
    return made != name and made.rpartition(".")[0] in (backend.name, f"_objects_{backend.name}")
