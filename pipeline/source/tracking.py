"""Which dirty tracker a migration takes, and why."""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import chain

from pipeline.guests.base import SourceGuest
from pipeline.source.quiet import Stamps, is_quiet, other_writers, stamps
from pipeline.uffd import WrittenScan
from protocol.errors import ConfigError


@dataclass(frozen=True)
class Tracking:
    """The tracker of one migration; `scans` by block number, empty but for `uffd`; with `none` the
    `stamps` of the memory that is looked at once."""

    name: str
    reason: str
    scans: dict[int, WrittenScan] = field(default_factory=dict)
    disarm: Callable[[], None] = lambda: None
    stamps: Stamps = ()

    def close(self) -> None:
        """Let go of the page maps, and the guest's memory. Idempotent."""
        for scan in self.scans.values():
            scan.close()
        self.disarm()


def choose(wanted: str, guest: SourceGuest, verify: str) -> tuple[str, str]:
    """The tracker that `wanted` (auto, uffd, hash) and `verify` (full, frames, off) lead to, and
    why, as far as looking tells; hash, where uffd is asked for by name and cannot be had; none,
    where nobody is there to write."""
    if wanted == "hash":
        return "hash", "asked for"
    if wanted == "auto" and verify != "full" and is_quiet(guest):
        return "none", "a file that nobody else can write to"
    if (reason := guest.why_no_uffd() or _why_distrusted(guest, verify)) is not None:
        return "hash", reason
    return "uffd", "asked for" if wanted == "uffd" else "works here"


def refusal(reason: str) -> str:
    """What is said where uffd is asked for by name and cannot be had."""
    return f"tracker: uffd cannot be had: {reason}"


def start_tracking(wanted: str, guest: SourceGuest, verify: str) -> Tracking:
    """Arm the tracker that `choose` takes, or hash where the guest is not armed after all.

    ConfigError where uffd is asked for by name and cannot be had.
    """
    before = () if guest.can_stop else stamps(guest)
    name, reason = choose(wanted, guest, verify)
    if name == "none":
        return Tracking(name, reason, stamps=before)
    mappings = guest.arm() if name == "uffd" else []
    if mappings:
        scans = {
            m.block: WrittenScan(m.pid, m.address, guest.blocks[m.block].pages) for m in mappings
        }
        for scan in scans.values():
            scan.scan()
        return Tracking(name, reason, scans, guest.disarm)
    if name == "uffd":
        reason = guest.why_not_armed()
    if wanted == "uffd":
        raise ConfigError(refusal(reason))
    return Tracking("hash", reason)


def _why_distrusted(guest: SourceGuest, verify: str) -> str | None:
    """Why uffd is not enough where `verify` does not find what it misses; None: it is."""
    if verify == "full":
        return None
    found = next(chain(guest.untracked_changes(), other_writers(guest)), None)
    return None if found is None else f"with verify: {verify} it would miss writes: {found}"
