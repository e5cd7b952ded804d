"""Which dirty tracker a migration takes, and why."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain

from pipeline.file_users import users_of
from pipeline.guests.base import SourceGuest
from pipeline.uffd import WrittenScan
from protocol.errors import ConfigError


@dataclass(frozen=True)
class Tracking:
    """The tracker of one migration; `scans` by block number, empty for `hash`."""

    name: str
    reason: str
    scans: dict[int, WrittenScan] = field(default_factory=dict)
    disarm: Callable[[], None] = lambda: None

    def close(self) -> None:
        """Let go of the page maps, and the guest's memory. Idempotent."""
        for scan in self.scans.values():
            scan.close()
        self.disarm()


def start_tracking(wanted: str, guest: SourceGuest, verify: str) -> Tracking:
    """Arm the tracker that `wanted` (auto, uffd, hash) and `verify` (full, frames, off) lead to.

    ConfigError where uffd is asked for by name and cannot be had.
    """
    if wanted == "hash":
        return Tracking("hash", "asked for")
    distrust = why_distrusted(guest, verify)
    mappings = [] if distrust else guest.arm()
    if mappings:
        scans = {
            m.block: WrittenScan(m.pid, m.address, guest.blocks[m.block].pages) for m in mappings
        }
        for scan in scans.values():
            scan.scan()
        return Tracking(
            "uffd", "asked for" if wanted == "uffd" else "works here", scans, guest.disarm
        )
    reason = distrust or guest.why_not_armed()
    if wanted == "uffd":
        raise ConfigError(f"tracker: uffd cannot be had: {reason}")
    return Tracking("hash", reason)


def why_distrusted(guest: SourceGuest, verify: str) -> str | None:
    """Why uffd is not enough where `verify` does not find what it misses; None: it is."""
    if verify == "full":
        return None
    found = next(chain(guest.untracked_changes(), _other_processes(guest)), None)
    return None if found is None else f"with verify: {verify} it would miss writes: {found}"


def _other_processes(guest: SourceGuest) -> Iterator[str]:
    besides = {os.getpid(), *([] if guest.process is None else [guest.process.pid])}
    for block in guest.blocks:
        for user in users_of(block.fd, besides):
            if user.can_write:
                yield f"process {user.pid} can write to memory {block.name}, too"
