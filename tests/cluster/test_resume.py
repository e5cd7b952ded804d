"""A conductor that is killed at any moment, and one that takes over from it."""

import os
import signal
import time
from pathlib import Path
from random import Random
from typing import Any

import psutil
import pytest

from tests.cluster.batches import Batch, batch
from tests.pipeline.guests.helpers import wait_until
from tests.system.migrations import Command

pytestmark = [pytest.mark.more, pytest.mark.timeout(300)]
GUESTS = {"g1": "a", "g2": "a", "g3": "a"}
KILLS = int(os.environ.get("PAGEFERRY_BATCH_KILLS", "5"))
LONGEST_S = 9.0
"""What a batch of three takes here, and a bit."""


def three(*, rate: str = "0") -> dict[str, Any]:
    """A plan that drains a, two at a time."""
    guests = [{"name": name} for name in GUESTS]
    hosts = {"a": {"address": "127.0.0.11", "guests": guests}, "b": {"address": "127.0.0.12"},
             "c": {"address": "127.0.0.13"}}  # fmt: skip
    return {
        "hosts": hosts,
        "drain": "a",
        "limits": {"cluster": 2},
        "bandwidth": rate,
        "retries": {"most": 5, "backoff": 0.5},
    }


def kill(moved: Batch, run: Command) -> None:
    """The conductor, which takes its hosts with it."""
    run.process.kill()
    run.process.wait()
    wait_until(lambda: not moved.processes("host"), within_s=30)


@pytest.mark.parametrize("seed", range(KILLS))
def test_killed_and_resumed(folder: Path, seed: int) -> None:
    """A guest that is lost, doubled, or moved once more."""
    dice = Random(seed)
    with batch(folder, GUESTS, **three()) as moved:
        with moved.run() as run:
            time.sleep(dice.uniform(0.5, LONGEST_S))
            was_over = run.process.poll() is not None
            kill(moved, run)
        if not was_over:
            with moved.run("--resume") as again:
                assert again.code(120) == 0, again.words
        rows, places = moved.rows(), moved.places()
        assert {name: [row.place] for name, row in rows.items()} == places
        assert {row.state for row in rows.values()} == {"arrived"}
        moved.check_limits(2, 2, 2)
        with Command(folder, "cleanup") as cleanup:
            assert cleanup.code() == 0, cleanup.words


def test_steered_from_another_terminal(folder: Path) -> None:
    """A pause that begins another guest; a cancelled one that moves on; a signal that is lost."""
    with batch(folder, GUESTS, **three(rate="256KiB")) as moved, moved.run() as run:
        run.wait_for("2 running")
        plan = str(moved.path)
        for words in (("pause", plan), ("cancel", plan, "g1"), ("limit", plan, "per-source=1")):
            with Command(folder, "batch", *words) as told:
                assert told.code() == 0, told.words
        run.wait_for("1 cancelled")
        with Command(folder, "batch", "status", plan) as told:
            assert told.code() == 0
            assert "1 running, 1 waiting, 1 cancelled" in told.output
        run.process.send_signal(signal.SIGINT)
        assert run.code(60) == 130, run.words
        assert {row.state for row in moved.rows().values()} == {"cancelled"}
        assert moved.places() == {name: ["a"] for name in GUESTS}


def test_a_host_is_killed(folder: Path) -> None:
    """An attempt that is taken for lost, or done twice, because Dask has lost its task."""
    with batch(folder, GUESTS, **three(rate="4MiB")) as moved, moved.run() as run:
        run.wait_for("2 running")
        time.sleep(3)
        victims: list[psutil.Process] = moved.processes("host", "a")
        victims[0].kill()
        assert run.code(120) == 0, run.words
        assert all(len(place) == 1 and place != ["a"] for place in moved.places().values())
        with Command(folder, "cleanup") as cleanup:
            assert cleanup.code() == 0, cleanup.words


def test_two_conductors(folder: Path) -> None:
    """Two that move the same guests; a journal of another plan."""
    with batch(folder, GUESTS, **three(rate="512KiB")) as moved, moved.run() as run:
        run.wait_for("2 running")
        with moved.run("--resume") as second:
            assert second.code() == 2
            assert "another `pageferry batch run` is at work on it" in second.words
        run.process.send_signal(signal.SIGTERM)
        assert run.code(60) == 130
        with moved.run() as again:
            assert again.code() == 2
            assert "--resume goes on with it" in again.words
