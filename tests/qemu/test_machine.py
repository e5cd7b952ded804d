"""A machine is as its user would start it, and leaves nothing behind."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.pipeline.monitor.talking import Client
from tests.qemu.machine import QEMU, Qemu
from tests.qemu.moving import move, pair
from tests.qemu.sector import Guest

pytestmark = pytest.mark.skipif(shutil.which(QEMU) is None, reason=f"{QEMU} is not installed")
IDLE = Guest()


@pytest.fixture
def disk(folder: Path) -> Iterator[Path]:
    if shutil.which("qemu-img") is None:
        pytest.skip("qemu-img is not installed")
    path = folder / "disk"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", path, "1M"], check=True, timeout=30)
    yield path
    path.unlink()


def test_it_has_a_monitor_for_others(folder: Path) -> None:
    """A monitor that is busy with the test, or memory that a migration cannot find."""
    with Qemu(folder, "here", IDLE) as here, Client(here.qmp) as other:
        (backend,) = other.ask("query-memdev")
        path = other.ask("qom-get", path=f"/objects/{backend['id']}", property="mem-path")
        assert (backend["share"], Path(path)) == (True, here.ram)
        assert here.ram.stat().st_size == IDLE.memory_bytes == backend["size"]
        assert other.ask("query-status")["status"] == here.status()


def test_it_leaves_nothing(folder: Path) -> None:
    """Memory that fills the machine, or a process that stays, after a test that fails."""
    here = Qemu(folder, "here", IDLE)
    with pytest.raises(ZeroDivisionError), here:
        1 // 0  # noqa: B018
    assert not psutil.pid_exists(here.process.pid)
    assert not here.ram.parent.exists()
    assert not here.folder.exists()


def test_one_that_does_not_start_says_why(folder: Path) -> None:
    """A deadline that passes, in place of QEMU's own words."""
    here = Qemu(folder, "here", IDLE, accel="none")
    with pytest.raises(AssertionError, match="accelerator"), here:
        pass
    assert not here.ram.parent.exists()


@pytest.mark.parametrize("machine", ["pc", "q35"])
def test_a_disk_goes_with_its_guest(folder: Path, disk: Path, machine: str) -> None:
    """A disk that the guest cannot write, or that two machines cannot have in turn."""
    with pair(folder, IDLE, machine, disk) as (here, there):
        here.wait_beats()
        drives = [one["inserted"] for one in here.monitor.ask("query-block") if "inserted" in one]
        assert [drive["drv"] for drive in drives if not drive["ro"]] == ["qcow2"]
        move(here, there)
        there.wait_beats(5)
        assert here.gap(there)[1] == 1
