"""A commit that is not answered: nobody is tried again before it is known who has the guest."""

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread

import pytest

from pipeline.records.record import decode_record
from pipeline.records.store import make_state_folder
from protocol.commit import Step
from protocol.errors import MigrationError
from tests.cluster.batches import batch
from tests.pipeline.guests.helpers import wait_until
from tests.system.migrations import Command

pytestmark = [pytest.mark.more, pytest.mark.timeout(400)]
HOSTS = {"a": {"address": "127.0.0.11"}, "b": {"address": "127.0.0.12"}}
GUESTS = {"g1": "a", "g2": "a"}
"""More than one: the moment in which a commit has no answer takes some ms, and may be missed."""
MOVES = [{"name": name, "source": "a", "destination": "b", "config": {"commit-timeout": 2}}
         for name in GUESTS]  # fmt: skip


class Holder(Thread):
    """Stops each guest that is filled, as soon as it could run, and whatever else is in `beside`:
    pids. So nobody can start it, and the commit has no answer."""

    def __init__(self, beside: Sequence[int]) -> None:
        super().__init__(daemon=True)
        self._beside = beside
        self._over = Event()
        self._seen: set[Path] = set()
        self._stopped: list[int] = []

    def run(self) -> None:
        """Look all the time."""
        while not self._over.is_set():
            for path in make_state_folder().glob("*-destination.jsonl"):
                if path not in self._seen:
                    self._look(path)

    def _look(self, path: Path) -> None:
        with suppress(OSError, MigrationError):  # of one that comes, or goes
            record = decode_record(path.read_bytes(), "a record")
            if record.step is Step.READY and record.guest is not None:
                self._seen.add(path)
                for pid in (record.guest.pid, *self._beside):
                    os.kill(pid, signal.SIGSTOP)
                    self._stopped.append(pid)

    def let_go(self) -> None:
        """Stop nobody any more; what lives yet goes on."""
        self._over.set()
        self.join()
        for pid in self._stopped:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


@contextmanager
def held_up(*beside: int) -> Iterator[Holder]:
    """While this lasts no destination answers a commit."""
    holder = Holder(beside)
    holder.start()
    try:
        yield holder
    finally:
        holder.let_go()


@pytest.mark.parametrize("who", ["guest", "host"])
def test_it_is_resolved_when_they_can_be_asked(folder: Path, who: str) -> None:
    """A guess about a guest of which the other side alone knows; a try while it may run there; one
    that stands still for ever."""
    plan = {"hosts": HOSTS, "migrations": MOVES, "limits": {"cluster": 1},
            "retries": {"most": 0}, "timeouts": {"host": 5}}  # fmt: skip
    with batch(folder, GUESTS, **plan) as moved:
        with moved.run() as run:
            wait_until(lambda: bool(moved.processes("host", "b")), within_s=30)
            hosts = [one.pid for one in moved.processes("host", "b")] if who == "host" else []
            with held_up(*hosts):
                assert run.code(200) == 1
            unknown = {name for name, row in moved.rows().items() if row.state == "unknown"}
            assert unknown, run.words
        with moved.run("--resume") as again:
            again.code(200)
        rows, places = moved.rows(), moved.places()
        assert {name: [row.place] for name, row in rows.items()} == places, again.words
        assert {rows[name].state for name in unknown} <= {"arrived", "failed"}
        assert max(row.tries for row in rows.values()) == 1
    with Command(folder, "cleanup") as cleanup:  # what a host that hung has left
        assert cleanup.code() == 0, cleanup.words
