"""Whatever fails, the machine runs on at the source, with its settings and nothing attached."""

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from pipeline.injection.ptrace import take_descriptor
from tests.pipeline.guests.helpers import wait_until
from tests.pipeline.monitor.talking import Client
from tests.qemu.machine import Qemu
from tests.qemu.pairs import GUEST, Pair, needs_qemu, pair
from tests.qemu.sector import Guest
from tests.system.migrations import END_S, Command

pytestmark = [pytest.mark.more, needs_qemu]

SLOW = {"max-bandwidth": "128KiB"}


def failed(folder: Path, machines: Pair, then: Callable[[Command], None]) -> str:
    """Migrate, slowly, do `then` in the first round; what is said of the failure."""
    with Command(folder, "run", config=machines.config(parameters=SLOW)) as run:
        run.wait_for("round 1")
        then(run)
        assert run.code() == 1, run.words
        machines.assert_stayed()
        return run.words.splitlines()[-1]


def test_the_destination_is_killed_during_rounds(folder: Path) -> None:
    """A source that goes on sending to a machine that has gone, until it is too late."""
    with pair(folder) as machines:
        words = failed(folder, machines, lambda _: machines.there.process.kill())
        assert "the guest that is being filled has ended" in words


def test_the_source_is_killed_during_rounds(folder: Path) -> None:
    """The memory of a dead guest, sent on to the end, and another reason then."""
    with pair(folder) as machines:
        with Command(folder, "run", config=machines.config(parameters=SLOW)) as run:
            run.wait_for("round 1")
            machines.here.process.kill()
            assert run.code(within_s=5) == 1, run.words
            pid = machines.here.process.pid
            assert f"is gone: process {pid} ended" in run.words.splitlines()[-1]
            assert run.result().guest_alive == "none"
        assert machines.there.status() == "inmigrate"


def test_another_machine_waits(folder: Path) -> None:
    """A guest whose devices are not there, found out when it stands still."""
    with pair(folder, machine="q35") as machines:
        with Command(folder, "run", config=machines.config()) as run:
            assert run.code() == 1
            assert "pc-q35" in run.words
            assert "round 1" not in run.words
        machines.assert_stayed()


def test_other_memory_waits(folder: Path) -> None:
    """A block that is too small, found out by a write beyond its end."""
    with pair(folder, guest=Guest(mib=32)) as machines:
        with Command(folder, "run", config=machines.config()) as run:
            assert run.code() == 1
            assert "67108864 come" in run.words
        machines.assert_stayed()


def test_it_is_cancelled(folder: Path) -> None:
    """A machine that is left stopped, or watched."""
    with pair(folder) as machines:
        with Command(folder, "run", config=machines.config(parameters=SLOW)) as run:
            run.wait_for("round 1")
            run.process.send_signal(signal.SIGINT)
            assert run.code() == 130, run.words
        machines.assert_stayed()
        assert machines.there.status() == "inmigrate"


def test_both_hang_when_it_is_cancelled(folder: Path) -> None:
    """Machines that stand still, one of them with a state that it must not have, and no word."""
    env = {"XDG_STATE_HOME": str(folder / "state")}
    with pair(folder) as machines:
        ends = [psutil.Process(end.process.pid) for end in (machines.here, machines.there)]
        config = machines.config(capabilities={"pause-before-switchover": True})
        with Command(
            folder, "run", "--qmp", str(folder / "run.qmp"), config=config, env=env
        ) as run:
            run.wait_for("pre-switchover")
            for end in ends:
                end.suspend()
            run.process.send_signal(signal.SIGINT)
            assert run.code(within_s=90) == 130, run.words
            assert "the guest may stand still" in run.words
            assert "`pageferry cleanup`" in run.words
        assert clean_up(folder, env)[0] == 1
        for end in ends:
            end.resume()
        code, words = clean_up(folder, env)
        assert code == 0
        assert "the guest goes on here" in words
        assert "what it had done was undone" in words
        assert clean_up(folder, env) == (0, "")
        assert machines.there.process.wait(END_S) == 0
        machines.assert_stayed()
    shutil.rmtree(folder / "state")


def clean_up(folder: Path, env: dict[str, str]) -> tuple[int, str]:
    """The exit code of `cleanup`, and what it says that it has done."""
    with Command(folder, "cleanup", env=env) as command:
        return command.code(within_s=90), command.output


def test_one_that_sleeps_is_cancelled(folder: Path) -> None:
    """A machine that was woken to be stopped, and that nobody lets go on."""
    with pair(folder) as machines:
        machines.here.monitor.ask("human-monitor-command", command_line="o /w 0x604 0x2400")
        wait_until(lambda: machines.here.status() == "suspended")
        config = machines.config(capabilities={"pause-before-switchover": True})
        with Command(folder, "run", "--qmp", str(folder / "run.qmp"), config=config) as run:
            run.wait_for("pre-switchover")
            run.process.send_signal(signal.SIGINT)
            assert run.code() == 130, run.words
        wait_until(lambda: machines.here.status() == "running")


def test_it_went_on_while_it_was_moved(folder: Path) -> None:
    """A guest that is rolled back to where it was when its state was saved."""
    with pair(folder) as machines:
        config = machines.config(capabilities={"pause-before-switchover": True})
        path = folder / "run.qmp"
        with Command(folder, "run", "--qmp", str(path), config=config) as run:
            run.wait_for("pre-switchover")
            machines.here.monitor.ask("cont")
            machines.here.wait_beats(3)
            machines.here.monitor.ask("stop")
            with Client(path) as driver:
                driver.ask("migrate-continue", state="pre-switchover")
            assert run.code() == 1, run.words
            assert "somebody has let the machine go on" in run.words
        machines.assert_stayed()


def kill_while_it_loads(folder: Path, machines: Pair) -> None:
    """Migrate, and kill the destination's machine when it is given its device state."""
    with Command(folder, "run", config=machines.config(parameters=SLOW)) as run:
        run.wait_for("round 1")
        psutil.Process(machines.there.process.pid).suspend()
        wait_until(lambda: machines.here.status() == "postmigrate", END_S)
        machines.there.process.kill()
        assert run.code() == 1, run.words
    machines.assert_stayed()


def test_the_destination_is_killed_while_it_loads(folder: Path) -> None:
    """A source that gives its machine away, or leaves it stopped, though nobody has taken it."""
    with pair(folder) as machines:
        kill_while_it_loads(folder, machines)


def test_memory_is_plugged_in_meanwhile(folder: Path) -> None:
    """A guest that arrives without it; or one that is stopped before anybody looks."""
    with pair(folder) as machines:
        more = {"qom_type": "memory-backend-ram", "id": "more", "size": 1 << 20}
        words = failed(folder, machines, lambda _: machines.here.monitor.ask("object-add", **more))
        assert "it has other memory than before" in words
        assert "STOP" not in [event["event"] for event in machines.here.monitor.events]


def hang_up(machine: Qemu) -> None:
    """Close the connections of whoever talks to a machine's monitor."""
    pidfd = os.pidfd_open(machine.process.pid)
    for fd in Path(f"/proc/{machine.process.pid}/fd").iterdir():
        if "socket:" not in str(fd.readlink()):
            continue
        one = socket.socket(fileno=take_descriptor(pidfd, int(fd.name)))
        with one, suppress(OSError):
            if one.getsockname() == str(machine.qmp) and one.getpeername() is not None:
                one.shutdown(socket.SHUT_RDWR)
    os.close(pidfd)


def test_the_monitor_of_the_source_is_closed(folder: Path) -> None:
    """A machine that nobody can tell to go on, stopped before anybody asked."""
    with pair(folder) as machines:

        def close(_: Command) -> None:
            machines.here.qmp.unlink()
            hang_up(machines.here)

        words = failed(folder, machines, close)
        assert "no QEMU listens" in words


def test_a_connection_that_is_lost_is_made_anew(folder: Path) -> None:
    """A migration that fails because somebody has restarted a proxy."""
    with pair(folder) as machines:
        with Command(folder, "run", config=machines.config(parameters=SLOW)) as run:
            run.wait_for("round 1")
            hang_up(machines.here)
            hang_up(machines.there)
            assert run.code() == 0, run.words
        machines.assert_moved(GUEST.ticks_of_a_pass)


def kill_when_it_has_loaded(folder: Path, machines: Pair) -> None:
    """Migrate, and kill the destination's machine when nothing but the commit is missing."""
    config = machines.config(capabilities={"pause-before-switchover": True})
    with Command(folder, "run", "--qmp", str(folder / "run.qmp"), config=config) as run:
        run.wait_for("pre-switchover")
        assert machines.there.status() == "paused"
        machines.there.process.kill()
        assert run.code() == 1, run.words
    machines.assert_stayed()


@pytest.mark.parametrize("fail", [kill_while_it_loads, kill_when_it_has_loaded])
def test_its_disk_can_be_written_after_a_failure(
    folder: Path, fail: Callable[[Path, Pair], None]
) -> None:
    """A disk whose lock the destination has, so that the machine cannot go on at the source."""
    if shutil.which("qemu-img") is None:
        pytest.skip("qemu-img is not installed")
    disk = folder / "disk"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", disk, "8M"], check=True)
    with pair(folder, disk=disk) as machines:
        fail(folder, machines)
        write(machines.here, disk, 0xAB)
        with Qemu(folder, "again", GUEST, incoming=True, disk=disk) as there:
            again = machines.config() | {"destination": {"qmp": str(there.qmp)}}
            with Command(folder, "run", config=again) as run:
                assert run.code() == 0, run.words
            write(there, disk, 0xCD)
    disk.unlink()


def write(machine: Qemu, disk: Path, value: int) -> None:
    """Have a machine write `value` to its disk, by itself."""
    for line in (f"write -P {value} 0 4k", "flush"):
        command = f'qemu-io ide0-hd0 "{line}"'
        machine.monitor.ask("human-monitor-command", command_line=command)
    assert bytes([value]) * 4096 in disk.read_bytes()
