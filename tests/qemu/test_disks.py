"""A machine's disk moves along: what its QEMU has written is what the other one reads."""

import filecmp
from pathlib import Path

import pytest

from tests.pipeline.guests.helpers import wait_until
from tests.qemu.machine import Qemu
from tests.qemu.pairs import GUEST, Pair, config_of, needs_qemu
from tests.system.migrations import MIB, Command

pytestmark = needs_qemu
SIZE = 16 * MIB


def drive(path: Path, cache: str) -> tuple[str, str]:
    """A raw image as a drive."""
    return "-drive", f"id=moved,if=none,format=raw,cache={cache},file={path}"


def write(machine: Qemu, number: int) -> None:
    """Have QEMU write 64 KiB at that MiB of the drive."""
    line = f'qemu-io moved "write -q -P {number} {number}M 64k"'
    assert machine.monitor.ask("human-monitor-command", **{"command-line": line}) == ""


def read(machine: Qemu, to: Path) -> bytes:
    """What QEMU reads of the drive, by way of a file."""
    kind = {"sync": "full", "format": "raw", "mode": "absolute-paths"}
    machine.monitor.ask("drive-backup", device="moved", target=str(to), **kind)
    wait_until(lambda: machine.monitor.ask("query-block-jobs") == [])
    return to.read_bytes()


@pytest.mark.parametrize("cache", ["writeback", "none"])
@pytest.mark.parametrize("tracker", ["hash", "auto"])
def test_what_a_machine_has_written_arrives(files: Path, tracker: str, cache: str) -> None:
    """A disk as it was some rounds ago; a machine that has the old content in its cache."""
    folder, here_disk, there_disk = files, files / "here.img", files / "there.img"
    for path, letter in ((here_disk, b"h"), (there_disk, b"t")):
        path.write_bytes(letter * SIZE)
    with (
        Qemu(folder, "here", GUEST, more=drive(here_disk, cache)) as here,
        Qemu(folder, "there", GUEST, more=drive(there_disk, cache), incoming=True) as there,
    ):
        moved = Pair(here, there)
        disk = {"path": str(here_disk), "destination": str(there_disk)}
        config = config_of(here, there, tracker=tracker, disks=[disk])
        config["parameters"] |= {"max-bandwidth": "16MiB"}
        config["codec"] = "none"
        with Command(folder, "run", config=config) as run:
            run.wait_for("round 1")
            for number in range(1, 9):
                write(here, number)
            assert run.code() == 0, run.words
            result = run.result()
        moved.assert_moved(10)
        assert result.verified is True
        assert filecmp.cmp(here_disk, there_disk, shallow=False)
        content = read(there, files / "copy")
    assert content == there_disk.read_bytes()
    assert all(content[n * MIB : n * MIB + 65536] == bytes([n]) * 65536 for n in range(1, 9))
