"""Less processor time for some threads of a process: a group of their own below the one they are
in, by the controller `cpu` of cgroup v1 or v2, where this user may make one.

Source of the interface: the kernel's cgroup-v1/sched-bwc and cgroup-v2 documents.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pipeline.records.processes import Process
from pipeline.records.record import AnyEffect, SlowedThreads
from protocol.errors import GuestError

PERIOD_US = 100_000
"""The kernel takes no quota below 1 ms: that is 1 % of it."""


@dataclass(frozen=True)
class Kind:
    """A version of cgroups: the file that lists threads, and the one that a limit goes to."""

    how: str
    threads: str
    limit: str


V1 = Kind("cgroup v1", "tasks", "cpu.cfs_quota_us")
V2 = Kind("cgroup v2", "cgroup.threads", "cpu.max")


@dataclass(frozen=True)
class Parent:
    """The group that threads are in, in which one can be made."""

    kind: Kind
    path: Path


class ProcessorTime:
    """A Throttle: the threads that `threads` lists get a share of what they could have."""

    def __init__(
        self, process: Process, parent: Parent, threads: Callable[[], Sequence[int]]
    ) -> None:
        self.how = parent.kind.how
        self._process = process
        self._kind = parent.kind
        self._threads = threads
        self._group = parent.path / f"pageferry-{process.pid}"

    def effects(self) -> tuple[AnyEffect, ...]:
        """The group, and who is in it."""
        return (SlowedThreads(self._process, str(self._group)),)

    def take(self, percent: int) -> None:
        """Limit the group, and have all of the threads in it."""
        threads = sorted(set(self._threads()))
        quota_us = len(threads) * PERIOD_US * (100 - percent) // 100
        try:
            self._make()
            if self._kind is V1:
                (self._group / "cpu.cfs_period_us").write_text(str(PERIOD_US))
            limit = str(quota_us) if self._kind is V1 else f"{quota_us} {PERIOD_US}"
            (self._group / self._kind.limit).write_text(limit)
            _move(threads, self._group / self._kind.threads)
        except OSError as error:
            raise GuestError(f"{self._group}: {error.strerror}") from None

    def _make(self) -> None:
        if self._group.is_dir():
            return
        self._group.mkdir()
        if self._kind is V2:
            (self._group / "cgroup.type").write_text("threaded")
            (self._group.parent / "cgroup.subtree_control").write_text("+cpu")

    def release(self) -> None:
        """Remove the group."""
        remove_group(self._group)


def remove_group(group: Path) -> None:
    """Take the threads that are in `group` back to the one above it, and remove it; nothing, where
    it is gone. GuestError where that cannot be."""
    kind = V2 if (group / V2.threads).exists() else V1
    try:
        with suppress(FileNotFoundError):
            _move(map(int, (group / kind.threads).read_text().split()), group.parent / kind.threads)
            group.rmdir()
            if kind is V2 and not any(one.is_dir() for one in group.parent.iterdir()):
                (group.parent / "cgroup.subtree_control").write_text("-cpu")
    except OSError as error:
        raise GuestError(f"{group}: {error.strerror}") from None


def _move(threads: Iterable[int], to: Path) -> None:
    for thread in threads:
        with suppress(ProcessLookupError):  # it has ended
            to.write_text(str(thread))


def maybe_parent(process: Process, threads: Sequence[int]) -> Parent | None:
    """Where a group for them can be made; None where that cannot be, or they are not together."""
    groups = [_groups(process.pid, thread) for thread in threads]
    if not groups or any(others != groups[0] for others in groups):
        return None
    for kind, root, path in _mounts():
        inside = groups[0].get(kind)
        if inside is None or not Path(inside).is_relative_to(root):
            continue
        parent = path / Path(inside).relative_to(root)
        if os.access(parent, os.W_OK) and _can_limit(kind, parent):
            return Parent(kind, parent)
    return None


def _can_limit(kind: Kind, parent: Path) -> bool:
    if kind is V1:
        return True
    with suppress(OSError):
        offered = (parent / "cgroup.controllers").read_text().split()
        given_on = (parent / "cgroup.subtree_control").read_text().split()
        return "cpu" in offered and set(given_on) <= {"cpu"}
    return False


def _groups(pid: int, thread: int) -> dict[Kind, str]:
    """The group that a thread is in, by version, as /proc has it."""
    found = {}
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/task/{thread}/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if "cpu" in controllers.split(","):
                found[V1] = path
            elif not controllers:
                found[V2] = path
    return found


def _mounts() -> Iterator[tuple[Kind, str, Path]]:
    """Where hierarchies are mounted: version, the group at their root, place."""
    with suppress(OSError):
        for line in Path("/proc/self/mountinfo").read_text().splitlines():
            left, _, right = line.partition(" - ")
            (_, _, _, root, place, *_), (kind, _, options, *_) = left.split(" "), right.split(" ")
            if kind == "cgroup2":
                yield V2, root, Path(place)
            elif kind == "cgroup" and "cpu" in options.split(","):
                yield V1, root, Path(place)
