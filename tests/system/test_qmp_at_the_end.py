"""Who drives an end is answered, too, when it is over and something is still waited for."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import psutil
import pytest

from pipeline.records.history import past
from tests.leaks import processes_of
from tests.pipeline.guests.helpers import wait_until
from tests.pipeline.monitor.talking import Client, listens
from tests.system.migrations import END_S, Command, settings
from tests.system.streams import destination, result_in

pytestmark = pytest.mark.more

STUBBORN = "trap '' TERM; exec sleep 30"
"""A command that has to be killed, 4 s after the end of the migration."""


@contextmanager
def driven(folder: Path, *words: str, guest: bool = False) -> Iterator[tuple[Command, Client]]:
    """A command with a client."""
    path = folder / "qmp"
    config = settings() if guest else None
    with Command(folder, *words, "--qmp", str(path), config=config) as command:
        wait_until(partial(listens, path), END_S)
        with Client(path) as client:
            yield command, client


def test_a_command_that_has_the_guest_is_not_waited_for_after_quit(folder: Path) -> None:
    """Two minutes in which nobody is answered, and no quit is heard."""
    there = folder / "there.json"
    with driven(folder, "migrate", "--wait", guest=True) as (here, client):
        client.ask("migrate", uri=f"exec:{destination(there, '--stay', '60')}")
        client.wait_for("MIGRATION", status="completed")
        assert client.ask("migrate_cancel") == {}
        assert client.ask("query-migrate")["status"] == "completed"
        assert client.ask("query-status")["status"] == "postmigrate"
        assert "was given away" in client.error("migrate", uri="tcp:127.0.0.1:1")
        client.ask("quit")
        assert here.code(within_s=3) == 0, here.words
        assert "runs on" in here.words
    assert not there.exists(), "it has not stayed"
    for process in processes_of(folder):
        if "incoming" in process.cmdline():
            process.terminate()
    wait_until(there.exists, END_S)
    assert result_in(there).self_check == "clean"


def test_another_migration_is_asked_for_while_the_command_of_one_ends(folder: Path) -> None:
    """A client that hangs after its cancel; a migration that is taken, and never ends."""
    with driven(folder, "migrate", "--wait", guest=True) as (here, client):
        client.ask("migrate", uri=f"exec:{STUBBORN}")
        client.ask("migrate_cancel")
        client.wait_for("MIGRATION", status="cancelled")
        began = time.monotonic()
        assert client.ask("query-migrate")["status"] == "cancelled"
        client.ask("migrate", uri="tcp:127.0.0.1:1")
        client.wait_for("MIGRATION", status="setup")
        client.ask("quit")
        assert time.monotonic() - began < 2
        assert here.code() == 130, here.words
    assert [entry.status for entry in past()[0]] == ["cancelled", "cancelled"]


def test_a_destination_answers_while_its_command_ends(folder: Path) -> None:
    """A client that is not told why the migration has failed."""
    go = folder / "go"
    command = f"until [ -e {go} ]; do sleep 0.1; done; echo Welcome; {STUBBORN}"
    with driven(folder, "incoming", "--uri", f"exec:{command}") as (there, client):
        go.touch()
        client.wait_for("MIGRATION", status="failed")
        began = time.monotonic()
        assert "not a pageferry stream" in client.ask("query-migrate")["error-desc"]
        assert time.monotonic() - began < 2
        assert there.code() == 1
    go.unlink()


def machine_of(command: Command) -> psutil.Process:
    """The guest that has arrived."""
    below = psutil.Process(command.process.pid).children(recursive=True)
    return next(one for one in below if "pipeline.guests.machine" in one.cmdline())


def test_a_destination_answers_while_its_guest_is_checked(folder: Path) -> None:
    """A client that hangs as long; a guest that is told to stand still, and goes on."""
    uri = f"unix:{folder}/control"
    with (
        driven(folder, "incoming", "--uri", uri, "--stay", "1") as (there, client),
        Command(folder, "migrate", "--uri", uri, config=settings()) as here,
    ):
        there.wait_for("the guest is here, for")
        machine = machine_of(there)
        machine.suspend()
        time.sleep(1.5)  # its stay is over: it is checked once more
        assert client.ask("query-migrate")["status"] == "completed"
        assert client.ask("query-status")["running"]
        client.ask("stop")
        assert client.ask("query-status")["status"] == "paused"
        client.ask("quit")
        machine.resume()
        client.wait_for("STOP")
        client.wait_for("SHUTDOWN", reason="host-qmp-quit")
        assert (here.code(), there.code()) == (0, 0), there.words
        assert there.result().self_check == "clean"
