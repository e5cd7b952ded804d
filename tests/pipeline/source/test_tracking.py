"""Which tracker a migration takes: as asked, or as it is possible, and it says why."""

from dataclasses import dataclass, field
from typing import cast

import pytest

from pipeline.guests.base import GuestBlock, Mapping, SourceGuest
from pipeline.source.tracking import start_tracking
from protocol.errors import ConfigError

BLOCKS = [GuestBlock("ram", 100, -1), GuestBlock("rom", 7, -1)]
MAPPINGS = [Mapping(1, 42, 0x7000), Mapping(0, 42, 0x1000)]


@dataclass
class Guest:
    """A guest that can be tracked from outside, or cannot."""

    mappings: list[Mapping]
    blocks: list[GuestBlock] = field(default_factory=lambda: BLOCKS)
    armed: int = 0

    def arm(self) -> list[Mapping]:
        """What is registered."""
        self.armed += 1
        return self.mappings

    def why_not_armed(self) -> str:
        """The reason."""
        return "this kernel is too old"

    def disarm(self) -> None:
        """Count it."""
        self.armed -= 1


@dataclass
class Scan:
    """A page map that counts its scans."""

    pid: int
    address: int
    pages: int
    scans: int = 0
    closed: int = 0

    def scan(self) -> None:
        """Count it."""
        self.scans += 1

    def close(self) -> None:
        """Count it."""
        self.closed += 1


@pytest.fixture(autouse=True)
def _no_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.source.tracking.WrittenScan", Scan)


def guest(*mappings: Mapping) -> SourceGuest:
    """A guest with these mappings."""
    return cast(SourceGuest, Guest(list(mappings)))


@pytest.mark.parametrize(("wanted", "reason"), [("auto", "works here"), ("uffd", "asked for")])
def test_uffd_is_taken_where_it_works(wanted: str, reason: str) -> None:
    """A scan of one block with the address or the size of another."""
    tracking = start_tracking(wanted, guest(*MAPPINGS))
    assert (tracking.name, tracking.reason) == ("uffd", reason)
    scans = cast(dict[int, Scan], tracking.scans)
    assert scans == {
        1: Scan(42, 0x7000, 7, scans=1),
        0: Scan(42, 0x1000, 100, scans=1),
    }, "armed by one scan, before the extents are listed"


def test_auto_takes_hash_where_uffd_cannot_be_had_and_says_why() -> None:
    """A migration that fails for want of a kernel feature that it can do without."""
    tracking = start_tracking("auto", guest())
    assert (tracking.name, tracking.scans) == ("hash", {})
    assert tracking.reason == "this kernel is too old"


def test_uffd_by_name_is_had_or_refused() -> None:
    """Another tracker than the one that was asked for."""
    with pytest.raises(ConfigError, match="tracker: uffd cannot be had: this kernel is too old"):
        start_tracking("uffd", guest())


def test_hash_by_name_leaves_the_guest_alone() -> None:
    """A registration that nobody needs and that costs the guest a fault a page."""
    registered = Guest(MAPPINGS)
    tracking = start_tracking("hash", cast(SourceGuest, registered))
    assert (tracking.name, tracking.reason, tracking.scans) == ("hash", "asked for", {})
    assert registered.armed == 0


def test_close_lets_go_of_every_page_map() -> None:
    """A page map of the guest's process that stays open after the migration."""
    tracking = start_tracking("auto", guest(*MAPPINGS))
    tracking.close()
    assert [cast(Scan, scan).closed for scan in tracking.scans.values()] == [1, 1]
    start_tracking("hash", guest()).close()
