"""Batches of real guests over hosts that are all this machine; where each guest is in the end."""

import json
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from pipeline.batch.journal import Journal
from pipeline.guests import wire
from pipeline.guests.conversation import close_all
from pipeline.guests.process import GuestProcess
from protocol.errors import MigrationError
from tests.pipeline.guests.helpers import wait_until
from tests.system.migrations import Command

CHECK_S = 30.0
GUEST = {
    "kind": "synthetic",
    "memory": "8MiB",
    "workload": {"working-set": "1MiB", "dirty-rate": "128KiB"},
}
BUSY = ["--set", "guest.workload.working-set=4MiB", "--set", "guest.workload.dirty-rate=64MiB"]
PAGEFERRY = [sys.executable, "-m", "pipeline"]


class Batch:
    """A plan in `folder`, its guests by name and host, and the command that conducts it."""

    def __init__(
        self,
        folder: Path,
        guests: Mapping[str, str],
        busy: Collection[str] = (),
        **plan: Any,  # noqa: ANN401
    ) -> None:
        self.folder = folder
        self._busy = busy
        self.guests = guests
        self.path = folder / "plan.yaml"
        self._config = folder / "guest.yaml"
        self._config.write_text(json.dumps({"guest": GUEST}))
        self.path.write_text(json.dumps(self._plan(plan)))
        self._started: list[subprocess.Popen[bytes]] = []
        for name, host in guests.items():
            self._started.append(self._guest(name, host))
        wait_until(lambda: all(self.socket(n, h).exists() for n, h in guests.items()), within_s=60)

    def _plan(self, plan: dict[str, Any]) -> dict[str, Any]:
        socket = f"{self.folder}/{{name}}-{{destination}}.sock"
        start = [
            *PAGEFERRY,
            "guest",
            str(self._config),
            "--incoming",
            "--socket",
            socket,
            "--quiet",
        ]
        defaults = {
            "guest": {**GUEST, "socket": f"{self.folder}/{{name}}-{{source}}.sock"},
            "destination": {"start": start, "socket": socket},
            "parameters": {"compress-threads": 1, "decompress-threads": 1},
        }
        return {"defaults": defaults, **plan}

    def socket(self, name: str, host: str) -> Path:
        """Where that guest answers at that host."""
        return self.folder / f"{name}-{host}.sock"

    def _guest(self, name: str, host: str) -> subprocess.Popen[bytes]:
        command = [*PAGEFERRY, "guest", str(self._config), "--quiet"]
        command += BUSY if name in self._busy else []
        return subprocess.Popen([*command, "--socket", str(self.socket(name, host))])

    def run(self, *options: str) -> Command:
        """`pageferry batch run`, started."""
        return Command(self.folder, "batch", "run", str(self.path), *options)

    def places(self) -> dict[str, list[str]]:
        """The hosts at which each guest runs, its memory proved right; there should be one."""
        return {name: [host for host in self._hosts(name) if self._runs(name, host)]
                for name in self.guests}  # fmt: skip

    def _hosts(self, name: str) -> list[str]:
        found = self.folder.glob(f"{name}-*.sock")
        return sorted(path.stem.removeprefix(f"{name}-") for path in found)

    def _runs(self, name: str, host: str) -> bool:
        try:
            machine = GuestProcess.attach(self.socket(name, host))
        except (MigrationError, OSError):
            return False
        try:
            described, fd = machine.talk.describe()
            close_all([fd])
            if described.state == "running":
                assert machine.talk.ask(wire.Check(), wire.Checked, CHECK_S).bad is None
            return described.state == "running"
        finally:
            machine.close()

    @property
    def journal(self) -> Path:
        """What the batch keeps."""
        return self.folder / "plan.yaml.journal"

    def check_limits(self, cluster: int, per_source: int, per_destination: int) -> int:
        """AssertionError where more than allowed ran at any instant; the most at the same time."""
        running: dict[str, tuple[str, str]] = {}
        journal, most = Journal(self.journal), 0
        ends = {row.token: (row.source, row.destination) for row in journal.attempts()}
        for _, _, what, _, token, _ in self.events():
            if what == "begin":
                running[token] = ends[token]
            elif what == "close":
                running.pop(token, None)
            most = max(most, len(running))
            assert len(running) <= cluster
            assert (
                max(Counter(one for one, _ in running.values()).values(), default=0) <= per_source
            )
            coming = Counter(other for _, other in running.values())
            assert max(coming.values(), default=0) <= per_destination
        journal.close()
        return most

    def rows(self) -> dict[str, Any]:
        """What the journal says of each guest."""
        journal = Journal(self.journal)
        found = {row.name: row for row in journal.moves()}
        journal.close()
        return found

    def events(self) -> list[tuple[int, float, str, str, str, str]]:
        """All that has happened, as the journal has it."""
        journal = Journal(self.journal)
        found = journal.events()
        journal.close()
        return found

    def processes(self, *words: str) -> list[psutil.Process]:
        """Those of this batch whose command line has all of `words`."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                line = process.cmdline()
                mine = process.environ().get("TMPDIR") == str(self.folder)
                if mine and all(word in line for word in words):
                    found.append(process)
        return found

    def close(self) -> None:
        """End all guests, wherever they are, and remove what is in the folder."""
        for process in self.processes("guest"):
            with suppress(psutil.Error):
                process.send_signal(signal.SIGTERM)
        for started in self._started:
            started.wait(10)
        wait_until(lambda: not self.processes("guest"), within_s=20)
        shutil.rmtree(self.folder / "keys", ignore_errors=True)
        for path in self.folder.iterdir():
            if path.is_file() or path.is_socket():
                path.unlink()


@contextmanager
def batch(
    folder: Path,
    guests: Mapping[str, str],
    busy: Collection[str] = (),
    **plan: Any,  # noqa: ANN401
) -> Iterator[Batch]:
    """A batch whose guests are gone afterwards; those that are `busy` write faster than they can be
    sent."""
    made = Batch(folder, guests, busy, **plan)
    try:
        yield made
    finally:
        made.close()
