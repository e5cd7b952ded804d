"""Many migrations in a row, and how much memory one of them takes for itself."""

import os
import re
import subprocess
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.leaks import nothing_left, processes_of
from tests.system.migrations import MIB, SYNTHETIC, Command, both_ends, settings

MIGRATIONS = int(os.environ.get("PAGEFERRY_MIGRATIONS", "20"))
PRIVATE_BYTES = 150 * MIB


def private_bytes(process: psutil.Process) -> int:
    """RssAnon: what the process has in memory and shares with nobody; 0 once it has ended."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    found = re.search(r"RssAnon:\s*(\d+) kB", status)
    return int(found[1]) * 1024 if found else 0


def test_many_in_a_row(folder: Path) -> None:
    """A slot, socket, process or descriptor that each migration leaves behind."""
    source = folder / "source"
    source.write_bytes(os.urandom(MIB))
    tiny = {**SYNTHETIC, "memory": "1MiB", "workload": {"working-set": "256KiB"}}
    quiet = {"kind": "file", "path": str(source)}
    for number in range(MIGRATIONS):
        with nothing_left() as inner:
            here, there = both_ends(settings(quiet if number % 4 else tiny), inner)
        assert (here.error_desc, there.error_desc) == (None, None), f"migration {number}"
        assert here.verified is True
    source.unlink()


@pytest.mark.parametrize(
    "memory",
    [
        "64MiB",
        pytest.param("2GiB", marks=[pytest.mark.slow, pytest.mark.timeout(300)]),
    ],
)
def test_private_memory(folder: Path, memory: str) -> None:
    """A process that holds guest memory: twice a guest's size on a machine full of guests."""
    guest = {**SYNTHETIC, "memory": memory, "workload": {"working-set": "32MiB"}}
    config = settings(guest, parameters={"downtime-limit": 10_000})
    most: dict[str, int] = {}
    with Command(folder, "run", "--quiet", config=config) as command:
        while command.process.poll() is None:
            with suppress(subprocess.TimeoutExpired):
                command.process.wait(0.05)
            for process in processes_of(folder):
                with suppress(psutil.Error, OSError):
                    name = f"{process.pid} {process.cmdline()[-3:]}"
                    most[name] = max(private_bytes(process), most.get(name, 0))
        assert command.code() == 0, command.words
        assert command.words == "", "--quiet is not"
    assert len(most) >= 8, "two commands, two guests, four workers at least"
    assert max(most.values()) < PRIVATE_BYTES, most
