"""The listing is what the source says, and the sector what the listing says."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.qemu.sector import GIVEN_AT, LISTING, SECTOR_BYTES, Guest, bytes_of

SOURCE = LISTING.with_suffix(".asm")


def source_of(listing: str) -> list[str]:
    """The lines that it was made of; a long one has more than one line in it."""
    lines: dict[str, str] = {}
    for line in listing.splitlines():
        lines.setdefault(line[:6], line[40:])
    return list(lines.values())


def test_the_listing_is_of_this_source() -> None:
    """A source that was changed, while the tests go on with what it was."""
    assert source_of(LISTING.read_text()) == SOURCE.read_text().splitlines()


@pytest.mark.skipif(shutil.which("nasm") is None, reason="nasm is not installed")
def test_it_assembles_to_the_bytes_of_the_listing(tmp_path: Path) -> None:
    """A listing that was mended by hand, or is read wrong."""
    made = tmp_path / "sector"
    subprocess.run(["nasm", "-f", "bin", "-o", made, SOURCE], check=True, timeout=30)
    assert bytes_of(LISTING.read_text()) == made.read_bytes()


def test_a_boot_sector() -> None:
    """Numbers that land in the code, or a sector that the BIOS does not take for one."""
    idle, plain = Guest(mib=64), bytes_of(LISTING.read_text())
    assert (len(plain), plain[-2:]) == (SECTOR_BYTES, b"\x55\xaa")
    assert idle.image() == plain, "what the source has are the defaults"
    busy = Guest(mib=128, working=range(256, 300), dirty_rate=1, tick_ms=5, checks=2).image()
    changed = [at for at in range(SECTOR_BYTES) if busy[at] != plain[at]]
    assert {GIVEN_AT, GIVEN_AT + 20} < {at & ~3 for at in changed}
    assert GIVEN_AT <= min(changed) < max(changed) < GIVEN_AT + 24


@pytest.mark.parametrize(
    "damage",
    [("00000058 66", "00000059 66"), ("66B81000", "66B810"), ("<rep 2h>", "<rep 3h>")],
)
def test_a_listing_with_a_gap_is_refused(damage: tuple[str, str]) -> None:
    """Code that is off by a byte from some line on."""
    listing = LISTING.read_text()
    assert damage[0] in listing
    with pytest.raises(ValueError, match="stands at"):
        bytes_of(listing.replace(*damage, 1))


@pytest.mark.parametrize("working", [range(255, 300), range(300, 300), range(300, 16385)])
def test_a_working_set_outside_of_its_memory(working: range) -> None:
    """A guest that overwrites its own code, or writes where there is no memory."""
    with pytest.raises(ValueError, match="working set"):
        Guest(mib=64, working=working)
