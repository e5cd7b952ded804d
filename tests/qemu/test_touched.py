"""Others' hands on a machine that moves, by another monitor, or on the file that is its memory."""

import mmap
import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from pipeline.guests.qemu.arrival import QemuArrival
from pipeline.guests.qemu.ram import Backend, open_block
from pipeline.guests.qemu.source import QemuGuest
from protocol.errors import NoSuchGuest
from tests.pipeline.guests.helpers import python, wait_until
from tests.pipeline.monitor.talking import Client
from tests.qemu.machine import Qemu
from tests.qemu.moving import copy_memory
from tests.qemu.pairs import GUEST, needs_qemu, pair
from tests.system.migrations import Command

pytestmark = needs_qemu

READS = """
import mmap, os, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
memory = mmap.mmap(fd, 0, mmap.MAP_SHARED, mmap.PROT_READ)
print(1, flush=True)
sys.stdin.read()
"""
WRITES = READS.replace("O_RDONLY", "O_RDWR").replace(", mmap.PROT_READ", "")


def arrival(qmp: Path) -> QemuArrival:
    """The machine that waits there, with nothing on record."""
    return QemuArrival(qmp, lambda _: None)


def reset(machine: Qemu) -> None:
    """Start it anew, stopped as it is."""
    machine.monitor.ask("system_reset")


def run_for_a_moment(machine: Qemu) -> None:
    """Let it run, and stop it again."""
    machine.monitor.ask("cont")
    wait_until(lambda: machine.status() == "running")
    machine.monitor.ask("stop")


def run_and_save(machine: Qemu) -> None:
    """Let it run, and take its state: it is `postmigrate` again."""
    machine.monitor.ask("cont")
    machine.wait_beats(3)
    machine.monitor.ask("migrate", uri="exec:cat >/dev/null")
    wait_until(lambda: machine.status() == "postmigrate")


@pytest.mark.parametrize(
    ("end", "touch"),
    [("there", reset), ("there", run_for_a_moment), ("here", run_and_save), ("here", reset)],
)
def test_a_machine_that_somebody_touches_is_not_moved(
    folder: Path, end: str, touch: Callable[[Qemu], None]
) -> None:
    """A guest that is booted from scratch, runs too early, or goes back in time: "verified"."""
    with pair(folder) as machines:
        config = machines.config(capabilities={"pause-before-switchover": True})
        path = folder / "run.qmp"
        with Command(folder, "run", "--qmp", str(path), config=config) as run:
            run.wait_for("pre-switchover")
            touch(getattr(machines, end))
            with Client(path) as driver:
                driver.ask("migrate-continue", state="pre-switchover")
            assert run.code() == 1, run.words
            assert "somebody has let the machine" in run.words
        if (end, touch) != ("here", reset):
            machines.assert_stayed()


def test_one_that_is_stopped_as_soon_as_it_runs_has_arrived(folder: Path) -> None:
    """A guest that ran there, and of which an old copy goes on here."""
    with pair(folder) as machines, closing(QemuGuest(machines.here.qmp)) as leaving:
        arriving = arrival(machines.there.qmp)
        leaving.effects("running")
        leaving.stop()
        sections = leaving.save_devices()
        copy_memory(machines.here, machines.there)
        arriving.load_devices(sections)
        asked = arriving._monitor.ask

        def stopped_at_once(command: str, **arguments: object) -> object:
            told = asked(command, **arguments)
            if command == "cont":
                asked("stop")
            return told

        arriving._monitor.ask = stopped_at_once  # type: ignore[method-assign]
        assert arriving.begin("", run=True)
        arriving.close()
        assert machines.there.process.poll() is None


def test_memory_that_somebody_else_has_is_not_written(folder: Path) -> None:
    """A running guest that is overwritten by the one that comes, since both have one file."""
    with Qemu(folder, "there", GUEST, incoming=True) as machine:
        with (
            python(WRITES, str(machine.ram)),
            pytest.raises(NoSuchGuest, match="'s, too: each machine needs a file of its own"),
        ):
            arrival(machine.qmp)
        arrival(machine.qmp).close()


def test_what_a_process_may_not_write_is_not_written_for_it(folder: Path) -> None:
    """A file that only root may write, which another user's QEMU names as its memory."""
    path = folder / "memory"
    path.write_bytes(bytes(mmap.PAGESIZE))
    backend = Backend("ram", "memory-backend-file", mmap.PAGESIZE, True, str(path))
    with python(READS, str(path)) as (process, _):
        os.close(open_block(backend, process.pid, writable=False).fd)
        with pytest.raises(NoSuchGuest, match="cannot be opened"):
            open_block(backend, process.pid, writable=True)
    path.unlink()


def test_a_fifo_in_the_place_of_its_memory(folder: Path) -> None:
    """A wait without an end for somebody who writes."""
    with Qemu(folder, "here", GUEST) as machine:
        machine.ram.unlink()
        os.mkfifo(machine.ram)
        QemuGuest(machine.qmp).close()


def test_its_own_migrations_are_encrypted(folder: Path) -> None:
    """A guest that stands still for half a minute, and fails for a reason that nobody tells."""
    with pair(folder) as machines:
        for end, opens in ((machines.here, QemuGuest), (machines.there, arrival)):
            end.monitor.ask("object-add", qom_type="tls-creds-anon", id="t0", endpoint="server")
            end.monitor.ask("migrate-set-parameters", tls_creds="t0")
            with pytest.raises(NoSuchGuest, match="its own migrations use TLS"):
                opens(end.qmp)
