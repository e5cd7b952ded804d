"""What happens in a batch, as lines of JSON in a file."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pipeline.batch.journal import Journal, MoveRow
from pipeline.batch.summary import Summary, summary
from pipeline.cluster.conductor import Conductor
from pipeline.shell.batch_events import EventLines

LATER = 4e9
"""Seconds since the epoch; what was before a test is no news to it."""


class Stage:
    """A journal in which things happen, and who looks on."""

    def __init__(self, folder: Path) -> None:
        self.journal = Journal(folder / "journal")
        self.journal.begin("batch", b"plan", [MoveRow("g1", "a", 1 << 20)], 1.0)
        self.conductor = cast(Conductor, SimpleNamespace(journal=self.journal))

    @property
    def found(self) -> Summary:
        """Where all stand."""
        return summary("batch", (1.0, None), self.journal.moves(), [], ["a", "b"])


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    """One move."""
    made = Stage(tmp_path)
    yield made
    made.journal.close()


def lines(path: Path) -> list[dict[str, Any]]:
    """What is in the file."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_each_event_is_told_once(stage: Stage, tmp_path: Path) -> None:
    """News that come twice, or those of another conductor as if they were new."""
    path = tmp_path / "events"
    stage.journal.note(2.0, "begin", "g1", "t0", "b")
    told = EventLines(str(path))
    stage.journal.note(LATER, "begin", "g1", "t1", "b")
    told(stage.conductor, stage.found)
    stage.journal.note(LATER + 1, "arrived", "g1", "t1")
    told(stage.conductor, stage.found)
    told(stage.conductor, stage.found)
    events = [(line["event"], line.get("guest"), line.get("attempt")) for line in lines(path)]
    progress = ("progress", None, None)
    assert events == [
        ("begin", "g1", "t1"), progress, ("arrived", "g1", "t1"), progress, progress,
    ]  # fmt: skip
    assert lines(path)[1]["counts"]["waiting"] == 1


@pytest.mark.parametrize("kind", ["full disk", "pipe that nobody reads"])
def test_a_file_that_takes_no_more_does_not_end_the_batch(
    stage: Stage, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    """A hundred guests under way, and nowhere to write of them; or a wait for who reads it."""
    os.mkfifo(pipe := tmp_path / "pipe")
    told = EventLines("/dev/full" if kind == "full disk" else str(pipe))
    told(stage.conductor, stage.found)
    told(stage.conductor, stage.found)
    said = capsys.readouterr()
    assert (said.out + said.err).count("no more is written") == 1
