"""What listens at a monitor's path may be no QEMU, another one, or hang: one clear error each."""

import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from pipeline.guests.qemu import monitor
from pipeline.guests.qemu.arrival import QemuArrival
from pipeline.guests.qemu.monitor import QemuMonitor
from pipeline.guests.qemu.settings import Settings
from pipeline.guests.qemu.source import QemuGuest
from pipeline.guests.qemu.state import save
from pipeline.leftovers.qemu import has_started
from pipeline.records.record import LoadedQemu
from protocol.errors import GuestError
from tests.pipeline.guests.helpers import python, wait_until
from tests.qemu.machine import Qemu
from tests.qemu.pairs import GUEST, needs_qemu

ANSWERS = """
import json, socket, sys
server = socket.socket(socket.AF_UNIX)
server.bind(sys.argv[1])
server.listen()
print(1, flush=True)
version = {"qemu": {"major": 7, "minor": 2, "micro": 0}, "package": ""}
while True:
    client = server.accept()[0]
    client.sendall(json.dumps({"QMP": {"version": version, "capabilities": []}}).encode() + b"\\n")
    while data := client.recv(65536):
        asked = json.loads(data)
        told = {} if asked["execute"] == "qmp_capabilities" else json.loads(sys.argv[2])
        number = {name: asked[name] for name in asked if name == "id"}
        client.sendall(json.dumps({"return": told, **number}).encode() + b"\\n")
"""
"""A server that greets as QEMU does, and answers everything with one and the same."""


NO_SENSE = r"is not understood|cannot take part"


@contextmanager
def answering(folder: Path, answer: str, code: str = ANSWERS) -> Iterator[Path]:
    """Where it listens."""
    path = folder / "answers"
    try:
        with python(code, str(path), answer):
            yield path
    finally:
        path.unlink()


@pytest.mark.parametrize(
    "answer",
    ["{}", "[]", "null", "7", '"x"', "[7]", "[{}]", '{"status": 7}', '{"status": "running"}'],
)
def test_an_answer_that_makes_no_sense(folder: Path, answer: str) -> None:
    """An error of Python's, which tells a user nothing."""
    with answering(folder, answer) as path:
        with pytest.raises(GuestError, match=NO_SENSE):
            QemuGuest(path)
        with pytest.raises(GuestError, match=NO_SENSE):
            QemuArrival(path, lambda _: None)
        with closing(QemuMonitor(path)) as asked, pytest.raises(GuestError, match=NO_SENSE):
            Settings(asked)


@pytest.mark.parametrize("answer", ["[" * 100_000 + "]" * 100_000, '"' + "x" * (11 << 20) + '"'])
def test_an_answer_that_the_library_does_not_see_through(folder: Path, answer: str) -> None:
    """An error of its own, by which a guest is left stopped, and forgotten."""
    (folder / "answer").write_text(answer)
    verbatim = ANSWERS.replace("json.loads(sys.argv[2])", '"@"').replace(
        "**number}).encode()", "**number}).replace('\"@\"', open(sys.argv[2]).read()).encode()"
    )
    with (
        answering(folder, str(folder / "answer"), verbatim) as path,
        closing(QemuMonitor(path)) as asked,
        pytest.raises(GuestError),
    ):
        asked.ask("stop")
    (folder / "answer").unlink()


def test_what_does_not_speak_qmp(folder: Path) -> None:
    """A monitor for people, which a user takes for the other kind."""
    banner = ANSWERS.replace('json.dumps({"QMP"', 'str({"QMP"')
    with (
        answering(folder, "{}", banner) as path,
        pytest.raises(GuestError, match="does not speak QMP"),
    ):
        QemuMonitor(path)


@needs_qemu
def test_another_qemu_listens_there(folder: Path) -> None:
    """A machine that is stopped in place of the one that moves."""
    with Qemu(folder, "here", GUEST) as one, Qemu(folder, "there", GUEST) as other:
        with closing(QemuMonitor(one.qmp)) as asked:
            one.process.kill()
            one.process.wait()
            one.qmp.unlink()
            shutil.move(other.qmp, one.qmp)
            with pytest.raises(GuestError, match="qmp: another QEMU listens there now"):
                asked.ask("stop")
        assert other.status() == "running"


@needs_qemu
def test_one_that_is_stopped_does_not_greet(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hint at another client, of which there is none."""
    monkeypatch.setattr(monitor, "GREETING_S", 0.3)
    with Qemu(folder, "here", GUEST) as machine:
        os.kill(machine.process.pid, signal.SIGSTOP)
        with pytest.raises(GuestError, match="is stopped by a signal"):
            QemuMonitor(machine.qmp)


@needs_qemu
def test_one_that_has_a_client_is_said_to_have_one(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A QEMU of which the first attempt says so, and each later one that there is none."""
    monkeypatch.setattr(monitor, "GREETING_S", 0.3)
    with Qemu(folder, "here", GUEST) as machine, closing(QemuMonitor(machine.qmp)):
        for _ in range(5):
            with pytest.raises(GuestError, match="one client at a time"):
                QemuMonitor(machine.qmp)


@needs_qemu
def test_whether_it_was_started(folder: Path) -> None:
    """A guest that has run, and has crashed, is taken for one that never ran, and run again."""
    with Qemu(folder, "here", GUEST) as machine:
        with closing(QemuMonitor(machine.qmp)) as asked:
            loaded = LoadedQemu(asked.process, str(machine.qmp))
        assert has_started(loaded)
        machine.monitor.ask("stop")
        assert not has_started(loaded)
        machine.monitor.ask("cont")
        machine.monitor.ask("migrate", uri="exec:cat >/dev/null")
        wait_until(lambda: machine.status() == "postmigrate")
        with pytest.raises(GuestError, match="is postmigrate: whether it has run nobody can say"):
            has_started(loaded)


@needs_qemu
def test_a_state_that_is_too_large(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A guest that stands for half a minute, for another reason than is said."""
    monkeypatch.setattr("pipeline.guests.qemu.state.MAX_DEVICE_BYTES", 4096)
    with Qemu(folder, "here", GUEST) as machine, closing(QemuGuest(machine.qmp)) as guest:
        machine.wait_up()
        guest.effects("running")
        guest.stop()
        with pytest.raises(GuestError, match="takes more than 4096 bytes"):
            guest.save_devices()
        guest.resume()
        assert machine.status() == "running"


@needs_qemu
def test_memory_that_travels_with_the_state(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipe that nobody reads any more, and a QEMU that waits for that."""
    monkeypatch.setattr("pipeline.guests.qemu.state.MAX_DEVICE_BYTES", 1 << 20)
    with Qemu(folder, "here", GUEST) as machine, closing(QemuMonitor(machine.qmp)) as asked:
        machine.wait_up()
        machine.monitor.ask("stop")
        with pytest.raises(GuestError, match="memory that is not shared is in it"):
            save(asked)
        assert machine.monitor.ask("query-migrate")["status"] in ("failed", "cancelled")
