"""Which dirty tracker a migration takes, and why."""

from collections.abc import Callable
from dataclasses import dataclass, field

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


def start_tracking(wanted: str, guest: SourceGuest) -> Tracking:
    """Arm the tracker that `wanted` (auto, uffd, hash) leads to.

    ConfigError where uffd is asked for by name and cannot be had.
    """
    if wanted == "hash":
        return Tracking("hash", "asked for")
    mappings = guest.arm()
    if mappings:
        scans = {
            m.block: WrittenScan(m.pid, m.address, guest.blocks[m.block].pages) for m in mappings
        }
        for scan in scans.values():
            scan.scan()
        return Tracking(
            "uffd", "asked for" if wanted == "uffd" else "works here", scans, guest.disarm
        )
    if wanted == "uffd":
        raise ConfigError(f"tracker: uffd cannot be had: {guest.why_not_armed()}")
    return Tracking("hash", guest.why_not_armed())
