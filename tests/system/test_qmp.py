"""Migrations that are driven over QMP."""

import time
from functools import partial
from pathlib import Path

import psutil
import pytest

from tests.pipeline.guests.helpers import wait_until
from tests.pipeline.monitor.talking import Client
from tests.system.driven import driven
from tests.system.migrations import Command


def test_a_migration_is_driven_from_beginning_to_end(folder: Path) -> None:
    """A command that does nothing, or another thing than it says."""
    with driven(folder) as ends, Client(ends.source) as here, Client(ends.destination) as there:
        assert there.ask("query-status")["status"] == "inmigrate"
        assert there.ask("query-migrate") == here.ask("query-migrate") == {}
        assert "waiting for an incoming" in there.error("migrate", uri="tcp:127.0.0.1:1")
        assert "unknown migration protocol: no" in there.error("migrate-incoming", uri="no:where")
        assert there.wait_for("MIGRATION")["data"] == {"status": "setup"}
        there.ask("migrate-set-parameters", decompress_threads=3)
        there.ask("migrate-incoming", uri=ends.uri)
        assert there.wait_for("MIGRATION")["data"] == {"status": "setup"}
        assert there.ask("query-migrate")["socket-address"][0]["type"] == "unix"
        assert "already been started" in there.error("migrate-incoming", uri=ends.uri)
        here.ask("migrate_set_speed", value=4 << 20)
        here.ask("migrate", uri=ends.uri)
        assert "There's a migration process" in here.error("migrate", uri=ends.uri)
        for status in ("setup", "active"):
            assert here.wait_for("MIGRATION")["data"] == {"status": status}
        assert here.wait_for("MIGRATION_PASS")["data"] == {"pass": 1}
        assert "There's a migration process" in here.error(
            "migrate-set-capabilities", capabilities=[{"capability": "compress", "state": False}]
        )
        told = here.ask("query-migrate")
        assert told["status"] == "active"
        assert told["ram"]["remaining"] > 0
        here.ask("migrate_set_speed", value=0)
        here.ask("migrate_set_downtime", value=2.5)
        assert here.ask("query-migrate-parameters")["downtime-limit"] == 2500
        here.wait_for("STOP")
        for status in ("device", "completed"):
            assert here.wait_for("MIGRATION")["data"] == {"status": status}
        there.wait_for("RESUME")
        there.wait_for("MIGRATION", status="completed")
        assert here.ask("query-status") == {
            "status": "postmigrate", "running": False, "singlestep": False
        }  # fmt: skip
        assert here.ask("query-migrate")["ram"]["remaining"] == 0
        assert "was given away" in here.error("migrate", uri=ends.uri)
        here.ask("quit")
        assert here.wait_for("SHUTDOWN")
        assert (ends.here.code(), ends.there.code()) == (0, 0)
        assert (ends.here.result().verified, ends.there.result().self_check) == (True, "clean")


def test_a_failed_migration_may_be_tried_again(folder: Path) -> None:
    """A source that has to be started anew, and its guest with it, after a typing error."""
    with driven(folder) as ends, Client(ends.source) as here, Client(ends.destination) as there:
        assert "valid migration protocol" in here.error("migrate", uri="tcp")
        assert here.ask("query-migrate")["status"] == "failed"
        assert "there are no keys" in here.error("migrate", uri="tcp:192.0.2.1:1")
        assert "there are no keys" in here.ask("query-migrate")["error-desc"]
        assert "no address of no.such" in here.error("migrate", uri="tcp:no.such.:1")
        here.ask("migrate", uri="tcp:127.0.0.1:1")
        here.ask("migrate_cancel")
        here.wait_for("MIGRATION", status="cancelled")
        assert here.ask("query-migrate") == {"status": "cancelled", "error-desc": "cancelled"}
        assert here.ask("query-status")["running"]
        assert here.ask("migrate_cancel") == {}
        there.ask("migrate-incoming", uri=ends.uri)
        here.ask("migrate", uri=ends.uri)
        here.wait_for("MIGRATION", status="completed")
        here.ask("quit")
        assert (ends.here.code(), ends.there.code()) == (0, 0)


def test_it_waits_before_the_switch_over_where_it_is_asked_to(folder: Path) -> None:
    """A guest that is given away before somebody has said so; a cancel that comes too late."""
    pause = [{"capability": "pause-before-switchover", "state": True}]
    with driven(folder) as ends, Client(ends.source) as here, Client(ends.destination) as there:
        there.ask("migrate-incoming", uri=ends.uri)
        here.ask("migrate-set-capabilities", capabilities=pause)
        assert "migration is none" in here.error("migrate-continue", state="pre-switchover")
        here.ask("migrate", uri=ends.uri)
        here.wait_for("MIGRATION", status="pre-switchover")
        assert here.ask("query-status")["status"] == "finish-migrate"
        assert "leaving" in here.error("cont")
        time.sleep(0.3)
        assert here.ask("query-migrate")["status"] == "pre-switchover"
        assert "not device" in here.error("migrate-continue", state="device")
        here.ask("migrate-continue", state="pre-switchover")
        here.wait_for("MIGRATION", status="completed")
        here.ask("quit")
        parts = ends.here.result().downtime_parts
        assert parts is not None
        assert (parts.pause or 0) >= 300
        assert ends.there.code() == 0


@pytest.mark.parametrize("status", ["setup", "active", "pre-switchover"])
def test_it_is_cancelled_in_each_status(folder: Path, status: str) -> None:
    """A cancel that is not heard while something else is waited for."""
    pause = [{"capability": "pause-before-switchover", "state": True}]
    with driven(folder) as ends, Client(ends.source) as here, Client(ends.destination) as there:
        if status != "setup":
            there.ask("migrate-incoming", uri=ends.uri)
        here.ask("migrate-set-capabilities", capabilities=pause)
        here.ask("migrate_set_speed", value=1 if status == "active" else 0)
        here.ask("migrate", uri=ends.uri)
        here.wait_for("MIGRATION", status=status)
        began = time.monotonic()
        here.ask("migrate_cancel")
        here.wait_for("MIGRATION", status="cancelled")
        assert time.monotonic() - began < 1
        assert here.ask("query-status")["running"]
        here.ask("quit")
        if status == "setup":
            there.ask("quit")
        assert (ends.here.code(), ends.there.code()) == (130, 130)


def test_a_guest_that_was_paused_arrives_paused(folder: Path) -> None:
    """A guest that somebody has stopped for a reason, and a migration lets run."""
    with driven(folder) as ends, Client(ends.source) as here, Client(ends.destination) as there:
        here.ask("stop")
        assert here.wait_for("STOP")
        assert here.ask("query-status")["status"] == "paused"
        there.ask("migrate-incoming", uri=ends.uri)
        here.ask("migrate", uri=ends.uri)
        here.wait_for("MIGRATION", status="device")
        assert not [event for event in here.events if event["event"] == "STOP"]
        here.wait_for("MIGRATION", status="completed")
        there.wait_for("MIGRATION", status="completed")
        here.ask("quit")
        result = ends.there.result()
        assert (result.status, result.self_check) == ("completed", "clean")
        assert not [event for event in there.events if event["event"] == "RESUME"]


def test_what_is_refused_changes_nothing(folder: Path) -> None:
    """A set of parameters of which the first has taken effect when the second is refused."""
    with driven(folder) as ends, Client(ends.source) as here:
        before = here.ask("query-migrate-parameters")
        for given, words in [
            ({"compress_threads": 3, "compress_level": 10},
             "Parameter 'compress_level' expects a value between 0 and 9"),
            ({"compress_threads": 0}, "'compress_threads' expects a value between 1 and 255"),
            ({"decompress_threads": 256}, "'decompress_threads' expects a value between 1 and"),
        ]:  # fmt: skip
            assert words in here.error("migrate-set-parameters", **given)
        for size, words in [
            (2**62, "Parameter 'cache size' expects exceeds guest ram size"),
            (1, "Parameter 'cache size' expects is smaller than page size"),
            (2**64, "Parameter 'cache size' expects exceeding address space"),
        ]:
            assert here.error("migrate-set-cache-size", value=size) == words
        assert "For use with '-incoming defer'" in here.error("migrate-incoming", uri=ends.uri)
        assert here.ask("query-migrate-parameters") == before
        here.ask("migrate-set-cache-size", value=5 << 20)
        assert here.ask("query-migrate-cache-size") == 4 << 20
        here.ask("migrate_set_speed", value=-5)
        assert here.ask("query-migrate-parameters")["max-bandwidth"] == 0
        here.ask("quit")
        assert (ends.here.code(), ends.here.result().guest_alive) == (0, "source")


def has_workers(command: Command, wanted: int) -> bool:
    """Whether so many worker processes are there: children of its fork server."""
    children = psutil.Process(command.process.pid).children()
    return sum(len(one.children()) for one in children) == wanted


def test_workers_come_and_go_while_it_runs(folder: Path) -> None:
    """A frame lost with a worker that was let go; a number that is only a number."""
    with driven(folder) as ends, Client(ends.source) as here, Client(ends.destination) as there:
        there.ask("migrate-incoming", uri=ends.uri)
        here.ask("migrate_set_speed", value=8 << 20)
        here.ask("migrate", uri=ends.uri)
        here.wait_for("MIGRATION", status="active")
        for wanted in (5, 1, 3):
            here.ask("migrate-set-parameters", compress_threads=wanted)
            assert here.ask("query-migrate-parameters")["compress-threads"] == wanted
            wait_until(partial(has_workers, ends.here, wanted))
        here.ask("migrate_set_speed", value=0)
        here.wait_for("MIGRATION", status="completed")
        here.ask("quit")
        assert (ends.here.code(), ends.there.code()) == (0, 0)
        assert (ends.here.result().redone, ends.there.result().self_check) == (0, "clean")


def test_a_new_speed_takes_effect_at_once(folder: Path) -> None:
    """A worker that waits out a limit that has been lifted."""
    with driven(folder) as ends, Client(ends.source) as here, Client(ends.destination) as there:
        there.ask("migrate-incoming", uri=ends.uri)
        here.ask("migrate_set_speed", value=100)
        here.ask("migrate", uri=ends.uri)
        here.wait_for("MIGRATION", status="active")
        time.sleep(0.5)
        before = here.ask("query-migrate")["ram"]["transferred"]
        here.ask("migrate_set_speed", value=8 << 20)
        began = time.monotonic()
        time.sleep(0.2)
        rates = [here.ask("query-migrate")["ram"]["transferred"] for _ in range(2)]
        elapsed_s = time.monotonic() - began
        assert rates[-1] - before > (8 << 20) * (elapsed_s - 0.2)
        assert rates[-1] > before
        here.ask("migrate_set_speed", value=0)
        here.wait_for("MIGRATION", status="completed")
