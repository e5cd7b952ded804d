"""Commands that are watched: scraped while they run, their lines and the history read."""

import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest

from pipeline.records.history import past
from tests.pipeline.guests.helpers import wait_until
from tests.pipeline.monitor.talking import Client, listens
from tests.pipeline.shell.scraping import Samples, scrape
from tests.system.migrations import END_S, MIB, SYNTHETIC, Command, listen, settings

pytestmark = pytest.mark.more

SLOW = {"max-bandwidth": "8MiB", "downtime-limit": 2000}
WATCHED = ("--metrics", "0", "--log-format", "json")


def lines(command: Command) -> list[dict[str, Any]]:
    """What it has said by now, each line an object; ValueError for another one."""
    whole = command.words.rpartition("\n")[0]
    return [json.loads(line) for line in whole.splitlines()]


def url(command: Command) -> str:
    """Where it can be scraped."""
    command.wait_for('/metrics"')
    wait_until(lambda: any(line["event"] == "metrics" for line in lines(command)))
    return str(next(line["url"] for line in lines(command) if line["event"] == "metrics"))


def scraped(command: Command, seen: Callable[[Samples], bool]) -> Samples:
    """The first scrape in which `seen`."""
    found: Samples = {}

    def look() -> bool:
        found.clear()
        found.update(scrape(where))
        return seen(found)

    where = url(command)
    wait_until(look, END_S)
    return found


def kept() -> list[tuple[str, str]]:
    """Role and status of all in the history."""
    return [(entry.role, entry.status.value) for entry in past()[0]]


def test_both_ends_are_scraped_while_they_run(folder: Path) -> None:
    """Numbers that stand still, or that are not those of the result."""
    config = settings(parameters=SLOW)
    with listen(folder, "--stay", "60", "--metrics", "0") as there:
        uri = str(there.uri)
        where = next(word for word in there.words.split() if word.startswith("url="))
        with Command(folder, "migrate", "--uri", uri, *WATCHED, config=config) as here:
            sent = ("pageferry_transferred_bytes_total", "")
            first = scraped(here, lambda found: found.get(sent, 0) > 0)
            second = scraped(here, lambda found: found[sent] > first[sent])
            received = scrape(where.removeprefix("url="))
            assert here.code() == 0, here.words
            events = {line["event"] for line in lines(here)}
            result = here.result()
        wait_until(
            lambda: scrape(where.removeprefix("url="))["pageferry_status", "completed"] == 1, END_S
        )
        there.process.terminate()
        assert there.code() == 0
    assert {"metrics", "progress"} <= events
    assert second["pageferry_memory_bytes", ""] == 16 * MIB
    assert second["pageferry_workers", "compress"] == 2
    assert received["pageferry_workers", "decompress"] == 2
    assert received["pageferry_received_bytes_total", ""] > 0
    assert result.ram is not None
    assert second[sent] <= (result.ram.transferred or 0)


def test_the_address_is_free_again_at_the_end(folder: Path) -> None:
    """A port that a command which has ended still holds."""
    config = settings()
    with Command(folder, "run", *WATCHED, config=config) as command:
        where = url(command)
        address = where.removeprefix("http://").removesuffix("/metrics")
        assert command.code() == 0, command.words
        assert all(line["level"] == "info" for line in lines(command))
    with pytest.raises(URLError):
        scrape(where)
    with Command(folder, "run", "--metrics", address, config=config) as command:
        assert command.code() == 0, command.words
    assert kept() == [("destination", "completed"), ("source", "completed")] * 2
    one, other = past()[0][:2]
    assert one.session == other.session is not None


def test_failed_and_cancelled_ones_are_kept_and_mistakes_are_not(folder: Path) -> None:
    """A history that only knows what went well, or each typing error."""
    config = settings(parameters=SLOW)
    with Command(folder, "run", *WATCHED, config=config) as command:
        scraped(command, lambda found: found["pageferry_status", "active"] == 1)
        command.process.terminate()
        assert command.code() == 130
        assert (lines(command)[-1]["event"], lines(command)[-1]["exit_code"]) == ("cancelled", 130)
    assert sorted(kept()) == [("destination", "cancelled"), ("source", "cancelled")]
    with Command(folder, "run", "--set", "codec=x", config=config) as command:
        assert command.code() == 2
    assert len(kept()) == 2
    with listen(folder) as there:
        uri = str(there.uri)
        with Command(folder, "migrate", "--uri", uri, config=config) as here:
            here.wait_for("active")
            os.kill(there.process.pid, 9)
            assert here.code() == 1
    assert kept()[2:] == [("source", "failed")]
    with Command(folder, "cleanup") as command:
        assert command.code() == 0


def test_each_migration_of_a_command_that_does_several_is_kept(folder: Path) -> None:
    """One line for three migrations; one more for the command itself."""
    socket = folder / "source.qmp"
    options = ("--qmp", str(socket), "--wait", "--metrics", "0")
    with Command(folder, "migrate", *options, config=settings(SYNTHETIC)) as here:
        wait_until(lambda: listens(socket), END_S)
        with Client(socket) as client, listen(folder) as there:
            client.ask("migrate", uri="tcp:127.0.0.1:1")
            client.ask("migrate_cancel")
            client.wait_for("MIGRATION", status="cancelled")
            client.ask("migrate", uri=str(there.uri))
            client.wait_for("MIGRATION", status="completed")
            assert there.code() == 0
            wait_until(lambda: len(kept()) == 3)
            with suppress(AssertionError):
                client.ask("quit")
        assert here.code() == 0, here.words
    assert sorted(kept()) == [
        ("destination", "completed"), ("source", "cancelled"), ("source", "completed")
    ]  # fmt: skip


def test_a_history_that_cannot_be_written_changes_nothing(folder: Path) -> None:
    """A guest that has moved, and a command that says it has not."""
    state = Path(os.environ["XDG_STATE_HOME"]) / "pageferry"
    (state / "history.lock").mkdir(parents=True)
    with Command(folder, "run", "--quiet", "--log-format", "json", config=settings()) as command:
        assert command.code() == 0
        [line] = lines(command)
        assert line["level"] == "warning"
        assert "the history cannot be written" in line["event"]
    assert kept() == []
