"""Whole batches on an embedded Dask, with guests that are processes of their own."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from pipeline.batch.journal import Journal
from pipeline.cluster.ends import discard
from pipeline.cluster.folder import EndFolder
from pipeline.cluster.settling import Word, last_word
from tests.cluster.batches import Batch, batch
from tests.pipeline.guests.helpers import wait_until

pytestmark = pytest.mark.more
LOOPBACK = {name: {"address": f"127.0.0.{number}"} for number, name in enumerate("abcdef", 11)}


def test_three_guests_are_drained(folder: Path) -> None:
    """The smallest way through all of it."""
    guests = {"g1": "a", "g2": "a", "g3": "a"}
    hosts = {"a": {**LOOPBACK["a"], "guests": [{"name": name} for name in guests]},
             "b": LOOPBACK["b"], "c": LOOPBACK["c"]}  # fmt: skip
    limits = {"cluster": 2, "per-source": 2, "per-destination": 1}
    with batch(folder, guests, hosts=hosts, drain="a", limits=limits) as drained:
        with drained.run("--json", str(folder / "out.json")) as run:
            assert run.code(100) == 0, run.words
        places = drained.places()
        assert all(place in (["b"], ["c"]) for place in places.values()), places
        assert drained.check_limits(2, 2, 1) == 2
        told = json.loads((folder / "out.json").read_text())
        assert told["counts"]["arrived"] == 3
        assert {one["verified"] for one in told["moves"]} == {True}
        assert {one["name"]: [one["place"]] for one in told["moves"]} == places
        _check_last_words(drained)


def test_ctrl_c_at_a_terminal(folder: Path) -> None:
    """Hosts that hear it, too, and die of it in the midst of their work."""
    guests = {"g1": "a", "g2": "a"}
    moves = [{"name": name, "source": "a", "destination": "b"} for name in guests]
    plan: dict[str, Any] = {"hosts": LOOPBACK, "migrations": moves, "bandwidth": "256KiB"}
    with batch(folder, guests, **plan) as moved:
        with moved.run() as run:
            run.wait_for("2 running")
            wait_until(lambda: len(moved.processes("migrate")) == 2, within_s=30)
            os.killpg(run.process.pid, signal.SIGINT)
            assert run.code(60) == 130
            assert "ERROR" not in run.words
        assert {row.state for row in moved.rows().values()} == {"cancelled"}
        assert list(moved.places().values()) == [["a"], ["a"]]


def _check_last_words(drained: Batch) -> None:
    """What is left to say where a guest is, when its source has not said so."""
    journal = Journal(drained.journal)
    tokens = [row.token for row in journal.attempts()]
    journal.close()
    for token in tokens:
        folder = EndFolder(token, "destination")
        assert last_word(token) == Word(None, has_come=True), "by its result"
        folder.result_path.unlink()
        assert last_word(token) == Word(None, has_come=True), "by what waited for it"
        assert not discard(token, None, {"PAGEFERRY_OUTCOME": "failed"}), "it is left alone"
    assert all(drained.places().values())
