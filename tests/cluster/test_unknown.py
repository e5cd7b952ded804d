"""A commit that is not answered: nobody is tried again before it is known who has the guest."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

from pipeline.records.record import Record, decode_record
from pipeline.records.store import make_state_folder
from protocol.commit import Step
from protocol.errors import MigrationError
from protocol.session import Role
from tests.cluster.batches import batch
from tests.pipeline.guests.helpers import wait_until
from tests.system.migrations import Command

pytestmark = [pytest.mark.more, pytest.mark.timeout(400)]
HOSTS = {"a": {"address": "127.0.0.11"}, "b": {"address": "127.0.0.12"}}
GUESTS = {"g1": "a", "g2": "a"}
"""More than one: the moment in which a commit has no answer takes some ms, and may be missed."""
MOVES = [{"name": name, "source": "a", "destination": "b", "config": {"commit-timeout": 2}}
         for name in GUESTS]  # fmt: skip


class Watcher(Thread):
    """Looks at the records of a role, all the time, and does something when one comes to a step."""

    def __init__(self, role: Role, step: Step, do: Callable[[Record], None]) -> None:
        super().__init__(daemon=True)
        self._role = role
        self._step = step
        self._do = do
        self._over = Event()
        self.seen: set[Path] = set()

    def run(self) -> None:
        """Until it is closed."""
        while not self._over.is_set():
            for path in make_state_folder().glob(f"*-{self._role}.jsonl"):
                if path not in self.seen:
                    self._look(path)

    def _look(self, path: Path) -> None:
        with suppress(OSError, MigrationError):  # of one that comes, or goes
            record = decode_record(path.read_bytes(), "a record")
            if record.step is self._step:
                self.seen.add(path)
                self._do(record)

    def close(self) -> None:
        """Look no more."""
        self._over.set()
        self.join()


@contextmanager
def held_up(*beside: int) -> Iterator[None]:
    """While this lasts each guest that is filled is stopped as soon as it could run, and what is
    `beside` it: pids. So nobody can start it, and the commit has no answer."""
    stopped: list[int] = []

    def stop(record: Record) -> None:
        assert record.guest is not None
        for pid in (record.guest.pid, *beside):
            os.kill(pid, signal.SIGSTOP)
            stopped.append(pid)

    watcher = Watcher("destination", Step.READY, stop)
    watcher.start()
    try:
        yield
    finally:
        watcher.close()
        for pid in stopped:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


@pytest.mark.parametrize("who", ["guest", "host"])
def test_it_is_resolved_when_they_can_be_asked(folder: Path, who: str) -> None:
    """A guess about a guest of which the other side alone knows; a try while it may run there; one
    that stands still for ever."""
    plan: dict[str, Any] = {"hosts": HOSTS, "migrations": MOVES, "limits": {"cluster": 1},
            "retries": {"most": 1, "backoff": 0.5}, "timeouts": {"host": 5}}  # fmt: skip
    with batch(folder, GUESTS, **plan) as moved:
        with moved.run() as run:
            wait_until(lambda: bool(moved.processes("host", "b")), within_s=30)
            hosts = [one.pid for one in moved.processes("host", "b")] if who == "host" else []
            with held_up(*hosts):
                assert run.code(200) == 1
            unknown = {name for name, row in moved.rows().items() if row.state == "unknown"}
            assert unknown, run.words
            assert {moved.rows()[name].tries for name in unknown} == {1}
        with moved.run("--resume") as again:
            again.code(200)
        rows, places = moved.rows(), moved.places()
        assert {name: [row.place] for name, row in rows.items()} == places, again.words
        assert {rows[name].state for name in unknown} <= {"arrived", "failed"}
    with Command(folder, "cleanup") as cleanup:  # what a host that hung has left
        assert cleanup.code() == 0, cleanup.words


def test_a_source_is_killed_when_its_guest_runs_elsewhere(folder: Path) -> None:
    """A guest that is taken for one that stayed, and ended where it is, since the command that gave
    it away had no time to say so."""

    def kill(record: Record) -> None:
        assert record.owner is not None
        os.kill(record.owner.pid, signal.SIGKILL)

    plan: dict[str, Any] = {"hosts": HOSTS, "migrations": MOVES, "limits": {"cluster": 1}}
    watcher = Watcher("source", Step.GIVEN, kill)
    with batch(folder, GUESTS, **plan) as moved:
        watcher.start()
        with moved.run() as run:
            code = run.code(200)
        watcher.close()
        assert watcher.seen
        assert code == 0, run.words
        assert set(map(tuple, moved.places().values())) == {("b",)}
    with Command(folder, "cleanup") as cleanup:
        assert cleanup.code() == 0, cleanup.words
