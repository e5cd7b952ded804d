"""Less processor time for some threads of a process: each is put into a group of its own below the
one that it is in, by the controller `cpu` of cgroup v1 or v2, where this user may make one.

Source of the interface: the kernel's documents cgroup-v1/sched-bwc and cgroup-v2.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

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
    no_limit: str


V1 = Kind("cgroup v1", "tasks", "cpu.cfs_quota_us", "-1")
V2 = Kind("cgroup v2", "cgroup.threads", "cpu.max", "max")


@dataclass(frozen=True)
class Parent:
    """The group that a thread is in, in which one can be made."""

    kind: Kind
    path: Path


class ProcessorTime:
    """A Throttle: each thread of process `pid` that `parents` has gets a share of a processor at
    most."""

    def __init__(self, pid: int, parents: Mapping[int, Parent]) -> None:
        self.how = next(iter(parents.values())).kind.how
        self._groups = [
            (thread, parent.kind, parent.path / f"pageferry-{pid}-{thread}")
            for thread, parent in parents.items()
        ]

    def effects(self) -> tuple[AnyEffect, ...]:
        """The groups that are made, for the record."""
        return (SlowedThreads(tuple(str(group) for _, _, group in self._groups)),)

    def take(self, percent: int) -> None:
        """Limit the groups, and have the threads in them."""
        quota_us = PERIOD_US * (100 - percent) // 100
        for thread, kind, group in self._groups:
            try:
                _make(kind, group)
                limit = str(quota_us) if kind is V1 else f"{quota_us} {PERIOD_US}"
                (group / kind.limit).write_text(limit)
                _move(thread, group / kind.threads)
            except OSError as error:
                raise GuestError(f"{group}: {error.strerror}") from None

    def release(self) -> None:
        """Remove the groups."""
        for _, _, group in self._groups:
            remove_group(group)


def _make(kind: Kind, group: Path) -> None:
    if group.is_dir():
        return
    group.mkdir()
    if kind is V1:
        (group / "cpu.cfs_period_us").write_text(str(PERIOD_US))
    else:
        (group / "cgroup.type").write_text("threaded")
        (group.parent / "cgroup.subtree_control").write_text("+cpu")


def remove_group(group: Path) -> None:
    """Take who is in `group` back to the one above it, and remove it; nothing, where it is gone.
    The controller goes off with the last group below. GuestError where that cannot be."""
    kind = V2 if (group / V2.threads).exists() else V1
    try:
        with suppress(FileNotFoundError):
            # First: a thread that is moved with its time used up stands still for a second more.
            (group / kind.limit).write_text(kind.no_limit)
            for thread in (group / kind.threads).read_text().split():
                _move(int(thread), group.parent / kind.threads)
            group.rmdir()
            if kind is V2 and not any(one.is_dir() for one in group.parent.iterdir()):
                (group.parent / "cgroup.subtree_control").write_text("-cpu")
    except OSError as error:
        raise GuestError(f"{group}: {error.strerror}") from None


def _move(thread: int, to: Path) -> None:
    with suppress(ProcessLookupError):  # it has ended
        to.write_text(str(thread))


def maybe_parent(pid: int, thread: int) -> Parent | None:
    """Where a group for it can be made, below its own; None where that cannot be."""
    groups = _groups(pid, thread)
    for kind, root, path in _mounts():
        inside = groups.get(kind)
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
