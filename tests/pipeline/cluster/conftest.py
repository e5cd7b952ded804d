"""A stage for each test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.pipeline.cluster.stage import MOVES, Stage


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    """Two moves, one at a time."""
    monkeypatch.setattr("pipeline.cluster.questions.TURN_S", 0.001)
    made = Stage(tmp_path, MOVES)
    yield made
    made.journal.close()
