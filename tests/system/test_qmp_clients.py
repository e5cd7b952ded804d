"""Migrations that are driven over QMP by clients that are not ours: a library, and a person's."""

import asyncio
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import cast

import pytest
from qemu.qmp import ExecuteError, QMPClient
from qemu.qmp.events import EventListener

from tests.pipeline.guests.helpers import wait_until
from tests.pipeline.monitor.talking import Client
from tests.system.driven import Ends, driven


async def drive(ends: Ends) -> list[str]:
    """A whole migration by the library `qemu.qmp`; the statuses that its events told."""
    here, there = QMPClient("source"), QMPClient("destination")
    await here.connect(str(ends.source))
    await there.connect(str(ends.destination))
    statuses: list[str] = []
    listener = EventListener("MIGRATION")
    with here.listen(listener):
        capabilities = [{"capability": "pause-before-switchover", "state": True}]
        await here.execute("migrate-set-capabilities", {"capabilities": capabilities})
        await here.execute("migrate-set-parameters", {"compress-level": 2})
        with pytest.raises(ExecuteError, match="between 0 and 9"):
            await here.execute("migrate-set-parameters", {"compress-level": 11})
        await there.execute("migrate-incoming", {"uri": ends.uri})
        await here.execute("migrate_set_speed", {"value": 4 << 20})
        await here.execute("migrate", {"uri": ends.uri})
        while True:
            event = await asyncio.wait_for(listener.get(), 20)
            statuses.append(cast(dict[str, str], event["data"])["status"])
            match statuses[-1]:
                case "active":
                    await here.execute("migrate_set_speed", {"value": 1 << 20})
                    await here.execute("migrate_set_downtime", {"value": 1.5})
                    await here.execute("migrate_set_speed", {"value": 0})
                case "pre-switchover":
                    await here.execute("migrate-continue", {"state": "pre-switchover"})
                case "completed":
                    break
    await here.execute("quit")
    for client in (here, there):
        await client.disconnect()
    return statuses


def test_a_client_that_is_not_ours_drives_it(folder: Path) -> None:
    """QMP that only we understand."""
    with driven(folder) as ends:
        statuses = asyncio.run(drive(ends))
        assert statuses == ["setup", "active", "pre-switchover", "device", "completed"]
        assert (ends.here.code(), ends.there.code()) == (0, 0)


class Shell:
    """The interactive `qmp-shell` at a terminal of its own."""

    def __init__(self, path: Path) -> None:
        self._terminal, other = pty.openpty()
        program = str(Path(sys.executable).with_name("qmp-shell"))
        self._process = subprocess.Popen(
            [program, str(path)], stdin=other, stdout=other, stderr=other, process_group=0,
            env={**os.environ, "HOME": str(path.parent), "TERM": "dumb"},
        )  # fmt: skip
        os.close(other)
        self.shown = ""
        self.read_to("(QEMU) ")

    def read_to(self, words: str) -> str:
        """What it shows, up to `words`."""
        shown = ""
        while words not in shown:
            shown += os.read(self._terminal, 4096).decode()
        self.shown += shown
        return shown

    def type(self, line: str) -> str:
        """Type a line; what it shows up to the next prompt."""
        os.write(self._terminal, line.encode() + b"\n")
        return self.read_to("(QEMU) ")

    def close(self) -> None:
        """Leave it."""
        self._process.terminate()
        self._process.wait(5)
        os.close(self._terminal)


def test_the_interactive_shell_drives_it(folder: Path) -> None:
    """A person who cannot do what the library does."""
    with driven(folder) as ends, Client(ends.destination) as there:
        there.ask("migrate-incoming", uri=ends.uri)
        shell = Shell(ends.source)
        try:
            assert '"running": true' in shell.type("query-status")
            assert "migrate-continue" in shell.type("query-commands")
            shell.type(
                'migrate-set-capabilities capabilities=[{"capability":"events","state":true}]'
            )
            shell.type("migrate-set-parameters compress-level=2 max-bandwidth=4194304")
            shell.type(f"migrate uri={ends.uri}")
            wait_until(lambda: '"status": "active"' in shell.type("query-migrate"))
            shell.type("migrate_set_speed value=1048576")
            assert '"max-bandwidth": 1048576' in shell.type("query-migrate-parameters")
            shell.type("migrate-set-parameters max-bandwidth=0 downtime-limit=900")
            there.wait_for("MIGRATION", status="completed")
            wait_until(lambda: '"status": "completed"' in shell.type("query-migrate"))
            for event in ("'event': 'STOP'", "'status': 'completed'"):
                assert event in shell.shown + shell.type("")
        finally:
            shell.close()
        for path in folder.glob(".qmp-shell*"):
            path.unlink()
        with Client(ends.source) as here:
            here.ask("quit")
        assert (ends.here.code(), ends.there.code()) == (0, 0)
