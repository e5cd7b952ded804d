"""A process by more than its number, so that another one with the same number is not met."""

import os
from pathlib import Path
from typing import Annotated

from msgspec import Meta, Struct

OWNER = "owner"
"""The file in a command's temporary folder that says whose it is."""
_STATE, _STARTED = 0, 19
"""Fields of /proc/PID/stat, counted from behind the name."""


class Process(Struct, frozen=True):
    """A process: its pid, when it was started (clock ticks since boot), of which boot."""

    pid: Annotated[int, Meta(ge=1)]
    started: int
    boot: str

    @property
    def is_alive(self) -> bool:
        """Whether it is there; one that has ended and was not waited for is not."""
        return maybe_process(self.pid) == self

    @property
    def is_stopped(self) -> bool:
        """Whether it stands still, by a signal or by a tracer."""
        try:
            return _fields(self.pid)[_STATE] in "Tt"
        except (FileNotFoundError, ProcessLookupError):
            return False

    @property
    def is_ending(self) -> bool:
        """Whether its memory is gone already, so that it is dead in a moment."""
        try:
            return Path(f"/proc/{self.pid}/statm").read_text().startswith("0 ")
        except (FileNotFoundError, ProcessLookupError):
            return True


def maybe_process(pid: int) -> Process | None:
    """The process that has this pid now; None where there is none."""
    try:
        fields = _fields(pid)
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[_STATE] in "ZX" else Process(pid, int(fields[_STARTED]), boot())


def _fields(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()


def this_process() -> Process:
    """The one that asks."""
    found = maybe_process(os.getpid())
    assert found is not None
    return found


def boot() -> str:
    """What names this boot of the system."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
