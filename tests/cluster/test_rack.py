"""Two dozen guests over six hosts with their own addresses and links, whatever happens."""

import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest

from pipeline.config.keys import make_keys
from tests.cluster.batches import Batch, batch
from tests.cluster.rack import SWITCH, Rack, rack
from tests.pipeline.guests.helpers import wait_until
from tests.system.migrations import Command

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
needs_root = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("tc") is None,
    reason="network namespaces are made by root, with ip and tc of iproute2",
)
HOSTS = "abcdef"
LINK = 20 << 20
LIMITS = {"cluster": 4, "per-source": 2, "per-destination": 2}
WAIT_S = 400


@pytest.fixture
def hosts() -> Iterator[Rack]:
    """Six hosts on a switch."""
    with rack(HOSTS, LINK) as made:
        yield made


def placed(count: int) -> dict[str, str]:
    """Guests, and where they are."""
    return {f"g{number:02}": HOSTS[number % len(HOSTS)] for number in range(count)}


def migrations(guests: dict[str, str]) -> list[dict[str, Any]]:
    """Each to one of two others."""
    dice, found = Random(1), []
    for name, host in guests.items():
        to = dice.sample([other for other in HOSTS if other != host], 2)
        found.append({"name": name, "source": host, "destination": to})
    return found


def keys(folder: Path) -> dict[str, str]:
    """Those of a host, made now."""
    return {"keys": str(folder), "key": make_keys(folder).decode()}


def plan_of(folder: Path, hosts: Rack, moves: list[dict[str, Any]]) -> dict[str, Any]:
    """All of a plan, whose hosts have keys of their own."""
    (folder / "keys").mkdir()
    return {
        "hosts": {name: {**hosts.host(name), **keys(folder / "keys" / name)} for name in HOSTS},
        "migrations": moves,
        "limits": LIMITS,
        "scheduler": f"embedded:{SWITCH}",
        "retries": {"most": 4, "backoff": 1},
        "timeouts": {"host": 30, "attempt": 120},
    }


def check_places(moved: Batch, expected: set[str]) -> None:
    """Each guest runs at exactly one host, where the journal says; those of `expected` have
    arrived."""
    rows, places = moved.rows(), moved.places()
    for name, found in places.items():
        assert len(found) == 1, (name, found, rows[name])
        assert found == [rows[name].place], (name, found, rows[name])
    assert {name for name, row in rows.items() if row.state == "arrived"} == expected


@needs_root
def test_all_arrive(folder: Path, hosts: Rack) -> None:
    """A limit that is exceeded for a moment; a guest that is nowhere, or twice."""
    guests = placed(24)
    _all_arrive(folder, guests, plan_of(folder, hosts, migrations(guests)))


def test_all_arrive_without_root(folder: Path) -> None:
    """The same where nobody may make namespaces: hosts are addresses of the loopback device."""
    guests = placed(24)
    hosts = {name: {"address": f"127.0.0.{number}"} for number, name in enumerate(HOSTS, 11)}
    plan = {"hosts": hosts, "migrations": migrations(guests), "limits": LIMITS}
    _all_arrive(folder, guests, plan)


def _all_arrive(folder: Path, guests: dict[str, str], plan: dict[str, Any]) -> None:
    with batch(folder, guests, **plan) as moved:
        with moved.run() as run:
            assert run.code(WAIT_S) == 0, run.words
        check_places(moved, set(guests))
        assert moved.check_limits(4, 2, 2) == 4


@needs_root
def test_faults(folder: Path, hosts: Rack) -> None:
    """A worker that is killed, a host that is cut off, a guest that never converges, a destination
    without room, a conductor that is killed twice."""
    guests = placed(24)
    moves = migrations(guests)
    moves[0]["config"] = {
        "parameters": {"max-bandwidth": "1MiB", "downtime-limit": 1},
        "convergence": {"progress-timeout": 5},
    }
    moves[1]["destination"] = ["a"]
    full = {"path": str(folder / "full/guest"), "socket": None, "start": None}
    moves[1]["config"] = {"destination": full}
    plan = plan_of(folder, hosts, moves)
    with small_disk(folder / "full"), batch(folder, guests, ["g00"], **plan) as moved:
        with moved.run() as run:
            reach(run, 2)
            moved.processes("host", "c")[0].kill()
            reach(run, 5)
            hosts.cut("d")
            time.sleep(10)
            hosts.mend("d")
            reach(run, 9)
            kill(moved, run)
        with moved.run("--resume") as again:
            reach(again, 14)
            kill(moved, again)
        with moved.run("--resume") as last:
            assert last.code(WAIT_S) == 1, last.words
        check_places(moved, set(guests) - {"g00", "g01"})
        rows = moved.rows()
        assert rows["g00"].state == rows["g01"].state == "failed"
        assert rows["g00"].reason
        assert rows["g01"].reason
        moved.check_limits(4, 2, 2)
        with Command(folder, "cleanup") as cleanup:
            assert cleanup.code() == 0, cleanup.words


@contextmanager
def small_disk(path: Path) -> Iterator[None]:
    """A file system on which no guest has room."""
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(path)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(path)], check=True)
        path.rmdir()


def reach(run: Command, arrived: int) -> None:
    """Wait until so many guests have arrived, or it has ended."""
    told = re.compile(r"(\d+) arrived")

    def is_reached() -> bool:
        counts = [int(count) for count in told.findall(run.words)]
        return max(counts, default=0) >= arrived or run.process.poll() is not None

    wait_until(is_reached, within_s=WAIT_S)
    assert run.process.poll() is None, run.words


def kill(moved: Batch, run: Command) -> None:
    """The conductor, which takes its hosts with it."""
    run.process.kill()
    run.process.wait()
    wait_until(lambda: not moved.processes("host"), within_s=30)
