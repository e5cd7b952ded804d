"""A real QEMU, unmodified: tracked, let go of, and it does not notice."""

import json
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.file_users import is_covered, mappings_of
from pipeline.injection.attach import Range, attach
from pipeline.uffd import WrittenScan
from protocol.errors import GuestError
from protocol.limits import PAGE_BYTES
from tests.pipeline.guests.helpers import wait_until
from tests.pipeline.injection.victims import kill_helper_before, needs_uffd

QEMU = shutil.which("qemu-system-x86_64")
pytestmark = [needs_uffd, pytest.mark.skipif(QEMU is None, reason="no qemu-system-x86_64")]
BYTES = 64 << 20


@dataclass
class Machine:
    """A QEMU: its process, a QMP conversation with it, the file of its RAM."""

    process: subprocess.Popen[bytes]
    qmp: Any
    ram: Path

    def ask(self, command: str) -> Any:  # noqa: ANN401
        """What it answers to `command`, events left out."""
        self.qmp.write(json.dumps({"execute": command}) + "\n")
        self.qmp.flush()
        while "return" not in (said := json.loads(self.qmp.readline())):
            assert "error" not in said
        return said["return"]

    def find_ram(self) -> Range:
        """Where its RAM is mapped."""
        with self.ram.open("rb") as file:
            found = mappings_of(self.process.pid, file.fileno())
        assert is_covered(found, BYTES)
        return found[0].address, found[0].length

    def pages(self) -> np.ndarray[Any, np.dtype[np.uint64]]:
        """A copy of its RAM, a row a page."""
        return np.fromfile(self.ram, np.uint64).reshape(-1, PAGE_BYTES // 8)


@contextmanager
def machine(folder: Path, *options: str) -> Iterator[Machine]:
    ram, path = folder / "ram", folder / "qmp"
    memory = f"memory-backend-file,id=ram,size={BYTES},mem-path={ram},share=on"
    with subprocess.Popen(
        [
            *(str(QEMU), "-nodefaults", "-display", "none", "-accel", "tcg"),
            *("-machine", "pc,memory-backend=ram", "-m", str(BYTES >> 20), "-object", memory),
            *("-qmp", f"unix:{path},server=on,wait=off", *options),
        ]
    ) as process:
        try:
            wait_until(path.exists)
            with socket.socket(socket.AF_UNIX) as conversation:
                conversation.settimeout(20)
                wait_until(lambda: conversation.connect_ex(str(path)) == 0)
                with conversation.makefile("rw") as qmp:
                    assert "QMP" in json.loads(qmp.readline())
                    found = Machine(process, qmp, ram)
                    found.ask("qmp_capabilities")
                    yield found
        finally:
            process.kill()


def test_no_write_is_missed_and_qemu_goes_on(tmp_path: Path) -> None:
    """A page that changed and is not reported; a QEMU that does not answer any more."""
    with machine(tmp_path) as guest:
        pid, where = guest.process.pid, guest.find_ram()
        changes = 0
        for _ in range(50):
            with (
                attach(pid, [where]) as attached,
                WrittenScan(pid, where[0], BYTES // PAGE_BYTES) as scan,
            ):
                assert attached.fd >= 0
                scan.scan()
                before = guest.pages()
                guest.ask("system_reset")
                assert guest.ask("query-status")["status"] == "running"
                guest.ask("stop")
                changed = np.flatnonzero((guest.pages() != before).any(axis=1))
                assert set(changed) <= set(scan.scan())
                changes += len(changed)
                guest.ask("cont")
        assert changes
        assert guest.ask("query-status")["running"]
        assert guest.process.poll() is None


def test_one_that_stands_still(tmp_path: Path) -> None:
    """Only a machine that runs that can be tracked."""
    with machine(tmp_path, "-S") as guest:
        where = guest.find_ram()
        with attach(guest.process.pid, [where]):
            assert guest.ask("query-status")["status"] == "prelaunch"


def test_the_helper_is_killed_before_each_step(tmp_path: Path) -> None:
    """A machine that dies with what only wanted to look at it."""
    with machine(tmp_path) as guest:
        where, step = guest.find_ram(), 0
        while kill_helper_before(step, guest.process.pid):
            assert guest.ask("query-status")["running"]
            step += 1
        with attach(guest.process.pid, [where]):
            assert guest.ask("query-status")["running"]


def test_its_sandbox(tmp_path: Path) -> None:
    """A QEMU of libvirt's, which filters its system calls and lets these through."""
    with machine(tmp_path, "-sandbox", "on,spawn=deny,resourcecontrol=deny") as guest:
        where = guest.find_ram()
        with pytest.raises(GuestError, match="filters its system calls"):
            attach(guest.process.pid, [where])
        with attach(guest.process.pid, [where], sandboxed=True) as attached:
            assert attached.fd >= 0
        assert guest.ask("query-status")["running"]
