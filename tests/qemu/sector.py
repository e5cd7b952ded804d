"""The guest of these tests: a boot sector, whose bytes are read from its assembler's listing.

`guest.asm` says what it does. Here is what it is told: by constants in the sector.
"""

import re
import struct
from dataclasses import dataclass
from pathlib import Path

LISTING = Path(__file__).with_name("guest.lst")
SECTOR_BYTES = 512
GIVEN_AT = 4
FIRST_PAGE = 256
"""At 1 MiB; what is below is the BIOS's, and the guest's own code and stack."""
PIT_HZ = 1_193_182
LINE = re.compile(r" *\d+ ([0-9A-F]{8}) ([0-9A-F]+)(?:<rep ([0-9A-F]+)h>)?(?=[- ]|$)")


@dataclass(frozen=True)
class Guest:
    """What the guest is to do: nothing but its heartbeat, unless it is told otherwise."""

    mib: int = 64
    """All of its memory, the first MiB included; less than 2,816 (a machine has a gap then)."""
    working: range = range(1024, 2048)
    """The pages that it overwrites in order, over and over."""
    dirty_rate: int = 0
    """Pages overwritten in a second."""
    tick_ms: float = 10.0
    """From one heartbeat to the next; at most 54."""
    checks: int = 500
    """Pages looked at in a tick."""

    def __post_init__(self) -> None:
        if not FIRST_PAGE <= self.working.start < self.working.stop <= self.pages:
            raise ValueError(f"the working set {self.working} is not in the memory that is stamped")

    @property
    def pages(self) -> int:
        """The first page that it has not."""
        return self.mib << 8

    @property
    def memory_bytes(self) -> int:
        """Its memory."""
        return self.pages << 12

    @property
    def ticks_of_a_pass(self) -> int:
        """So many ticks after any moment each page has been looked at."""
        return -(-(self.pages - FIRST_PAGE) // self.checks) + 1

    def boot(self, folder: Path, machine: str) -> list[str]:
        """Options that boot it from a floppy disk, by the controller that `machine` has or gets."""
        disk = folder / "floppy"
        disk.write_bytes(self.image())
        return [
            *(("-device", "isa-fdc") if machine == "q35" else ()),
            *("-drive", f"if=none,id=floppy,format=raw,readonly=on,file={disk}"),
            *("-device", "floppy,drive=floppy"),
        ]

    def image(self) -> bytes:
        """The sector, a whole floppy disk to the BIOS."""
        ends, divisor = (self.working.start, self.working.stop), round(PIT_HZ * self.tick_ms / 1e3)
        given = struct.pack("<6I", self.pages, *ends, self.dirty_rate, self.checks, divisor)
        plain = bytes_of(LISTING.read_text())
        return plain[:GIVEN_AT] + given + plain[GIVEN_AT + len(given) :]


def bytes_of(listing: str) -> bytes:
    """What the lines of a listing assemble to; ValueError for one that is not in its place."""
    found = b""
    for line in filter(None, map(LINE.match, listing.splitlines())):
        if int(line[1], 16) != len(found):
            raise ValueError(f"{line[0]!r} stands at {len(found):X}")
        found += bytes.fromhex(line[2]) * int(line[3] or "1", 16)
    return found
