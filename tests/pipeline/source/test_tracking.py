"""Which tracker a migration takes: as asked, or as it is possible, and it says why."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import pytest

from pipeline.file_users import sees_everybody
from pipeline.guests.base import GuestBlock, Mapping, SourceGuest
from pipeline.source.tracking import choose, start_tracking
from protocol.errors import ConfigError
from protocol.limits import PAGE_BYTES
from tests.pipeline.guests.helpers import as_another_user, python
from tests.pipeline.holding import HOLDS

BLOCKS = [GuestBlock("ram", 100, -1), GuestBlock("rom", 7, -1)]
MAPPINGS = [Mapping(1, 42, 0x7000), Mapping(0, 42, 0x1000)]


@dataclass
class Guest:
    """A guest that can be tracked from outside, or cannot."""

    mappings: list[Mapping]
    blocks: list[GuestBlock] = field(default_factory=lambda: BLOCKS)
    armed: int = 0
    unseen: list[str] = field(default_factory=list)
    lacks: str | None = None
    can_stop: bool = True
    process = None

    def arm(self) -> list[Mapping]:
        """What is registered."""
        self.armed += 1
        return self.mappings

    def why_not_armed(self) -> str:
        """The reason."""
        return "this kernel is too old"

    def why_no_uffd(self) -> str | None:
        """What is seen before it is tried."""
        return self.lacks

    def untracked_changes(self) -> list[str]:
        """Who else writes."""
        return self.unseen

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
    tracking = start_tracking(wanted, guest(*MAPPINGS), "full")
    assert (tracking.name, tracking.reason) == ("uffd", reason)
    scans = cast(dict[int, Scan], tracking.scans)
    assert scans == {
        1: Scan(42, 0x7000, 7, scans=1),
        0: Scan(42, 0x1000, 100, scans=1),
    }, "armed by one scan, before the extents are listed"


def test_auto_takes_hash_where_uffd_cannot_be_had_and_says_why() -> None:
    """A migration that fails for want of a kernel feature that it can do without."""
    tracking = start_tracking("auto", guest(), "full")
    assert (tracking.name, tracking.scans) == ("hash", {})
    assert tracking.reason == "this kernel is too old"


def test_uffd_by_name_is_had_or_refused() -> None:
    """Another tracker than the one that was asked for."""
    with pytest.raises(ConfigError, match="tracker: uffd cannot be had: this kernel is too old"):
        start_tracking("uffd", guest(), "full")


@pytest.mark.parametrize("verify", ["frames", "off"])
def test_uffd_is_not_trusted_where_something_is_unseen(verify: str) -> None:
    """A page that arrives stale, and nobody compares."""
    balloon = Guest(MAPPINGS, unseen=["it has a balloon"])
    tracking = start_tracking("auto", cast(SourceGuest, balloon), verify)
    assert (tracking.name, balloon.armed) == ("hash", 0)
    assert "it has a balloon" in tracking.reason
    with pytest.raises(ConfigError, match="it has a balloon"):
        start_tracking("uffd", cast(SourceGuest, balloon), verify)
    assert start_tracking("auto", cast(SourceGuest, balloon), "full").name == "uffd"


def test_what_is_not_there_is_told_before_what_is_not_trusted() -> None:
    """A user who takes a balloon off, and still gets no uffd."""
    file = Guest(MAPPINGS, unseen=["it has a balloon"], lacks="a file registers nothing")
    assert choose("auto", cast(SourceGuest, file), "frames") == ("hash", "a file registers nothing")
    assert start_tracking("auto", cast(SourceGuest, file), "full").name == "hash"
    assert file.armed == 0


@pytest.mark.parametrize(("how", "taken"), [("r", "uffd"), ("w", "hash"), ("wm", "hash")])
def test_uffd_is_not_trusted_where_others_can_write(tmp_path: Path, how: str, taken: str) -> None:
    """Memory that somebody else writes, and no mark shows it."""
    path = tmp_path / "memory"
    path.write_bytes(bytes(8 * PAGE_BYTES))
    with path.open("rb") as file, python(HOLDS, str(path), how) as (process, _):
        shared = Guest(MAPPINGS, [GuestBlock("ram", 8, file.fileno())] * 2)
        tracking = start_tracking("auto", cast(SourceGuest, shared), "frames")
        assert tracking.name == taken
        assert taken == "uffd" or f"process {process.pid}" in tracking.reason


SEES_ALL = pytest.mark.skipif(not sees_everybody(), reason="other users' processes are not seen")


@SEES_ALL
@pytest.mark.parametrize("how", ["r", "w"])
def test_a_quiet_file_is_looked_at_once(tmp_path: Path, how: str) -> None:
    """Memory hashed twice for nothing; or trusted though somebody has it open to write."""
    path = tmp_path / "memory"
    path.write_bytes(bytes(8 * PAGE_BYTES))
    with path.open("rb") as file, python(HOLDS, str(path), how):
        block = GuestBlock("memory", 8, file.fileno())
        quiet = cast(SourceGuest, Guest([], [block], lacks="it registers nothing", can_stop=False))
        frames, full = ("none", "hash") if how == "r" else ("hash", "hash")
        assert start_tracking("auto", quiet, "frames").name == frames
        assert start_tracking("auto", quiet, "full").name == full
        assert start_tracking("hash", quiet, "frames").name == "hash"


def test_who_is_not_seen_may_write() -> None:
    """A file taken for quiet by somebody who sees but his own processes."""
    assert as_another_user(sees_everybody) == "False"


def test_hash_by_name_leaves_the_guest_alone() -> None:
    """A registration that nobody needs and that costs the guest a fault a page."""
    registered = Guest(MAPPINGS)
    tracking = start_tracking("hash", cast(SourceGuest, registered), "full")
    assert (tracking.name, tracking.reason, tracking.scans) == ("hash", "asked for", {})
    assert registered.armed == 0


def test_close_lets_go_of_every_page_map() -> None:
    """A page map of the guest's process that stays open after the migration."""
    tracking = start_tracking("auto", guest(*MAPPINGS), "full")
    tracking.close()
    assert [cast(Scan, scan).closed for scan in tracking.scans.values()] == [1, 1]
    start_tracking("hash", guest(), "full").close()
