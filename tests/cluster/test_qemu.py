"""A QEMU in a batch, into one that the batch starts: anew for every attempt."""

import json
from pathlib import Path

import psutil
import pytest

from pipeline.batch.journal import Journal
from pipeline.cluster.folder import EndFolder
from pipeline.cluster.waiting import has_come
from tests.leaks import processes_of
from tests.pipeline.guests.helpers import wait_until
from tests.pipeline.monitor.talking import Client
from tests.qemu.machine import QEMU, Qemu
from tests.qemu.pairs import GUEST, needs_qemu
from tests.system.migrations import FEW_WORKERS, Command

pytestmark = [pytest.mark.more, needs_qemu]
BEATS = 100


def plan(folder: Path, here: Qemu) -> dict[str, object]:
    """One machine goes from a to b."""
    ram = f"memory-backend-file,id=ram,size={GUEST.mib}M,mem-path={folder}/{{attempt}}.ram,share=on"
    start = [
        *(QEMU, "-nodefaults", "-no-user-config", "-display", "none", "-S", "-incoming", "defer"),
        *("-machine", "pc,memory-backend=ram", "-accel", "tcg", "-m", f"{GUEST.mib}M"),
        *("-object", ram, "-serial", f"file:{folder}/{{attempt}}.serial"),
        *("-qmp", f"unix:{folder}/{{attempt}}.qmp,server=on,wait=off"),
        *GUEST.boot(folder, "pc"),
    ]
    return {
        "hosts": {"a": {"address": "127.0.0.11"}, "b": {"address": "127.0.0.12"}},
        "migrations": [{"name": "vm", "source": "a", "destination": "b", "memory": "64MiB"}],
        "retries": {"backoff": 1},
        "defaults": {
            "guest": {"kind": "qemu", "qmp": str(here.qmp)},
            "destination": {"qmp": f"{folder}/{{attempt}}.qmp", "start": start},
            "parameters": FEW_WORKERS,
        },
    }


def machines(folder: Path) -> list[psutil.Process]:
    """The test's own, and what the batch has started."""
    return [one for one in processes_of(folder) if one.name().startswith("qemu-system")]


def test_a_machine_goes_where_one_is_started_for_it(folder: Path) -> None:
    """One that waits and was tried once takes no guest any more; one that got none stays."""
    path = folder / "plan.yaml"
    with Qemu(folder, "here", GUEST) as here:
        here.wait_up()
        here.wait_beats(5)
        path.write_text(json.dumps(plan(folder, here)))
        with Command(folder, "batch", "run", str(path)) as run:
            wait_until(lambda: len(machines(folder)) == 2, within_s=60)
            first = max(machines(folder), key=lambda one: one.create_time())
            first.kill()
            assert run.code(100) == 0, run.words
        journal = Journal(folder / "plan.yaml.journal")
        tried = {row.token: row.outcome for row in journal.attempts()}
        journal.close()
        assert list(tried.values()) == ["failed", "arrived"]
        assert here.status() == "postmigrate"
        _goes_on(folder, list(tried)[1], here.counter())


def _goes_on(folder: Path, token: str, from_count: int) -> None:
    """What it says there begins where it ended here, and finds nothing damaged."""
    serial = folder / f"{token}.serial"
    wait_until(lambda: len(_counts(serial)) > BEATS, within_s=30)
    counts = _counts(serial)
    assert counts[:BEATS] == list(range(from_count + 1, from_count + 1 + BEATS))
    assert "bad" not in serial.read_text()
    assert has_come(EndFolder(token, "destination"))
    with Client(folder / f"{token}.qmp") as monitor:
        assert monitor.ask("query-status")["status"] == "running"
        monitor.ask("quit")
    wait_until(lambda: len(machines(folder)) == 1, within_s=20)
    for path in folder.iterdir():
        if path.is_file():
            path.unlink()


def _counts(serial: Path) -> list[int]:
    """Of its heartbeats, but that in whose middle it was stopped."""
    lines = serial.read_text().split("\n")[:-1] if serial.exists() else []
    return [int(line.split()[1], 16) for line in lines if line.startswith("t ")]
