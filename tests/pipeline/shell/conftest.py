"""What tests of the command line share: the engine, and a file to be given."""

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import structlog

from tests.pipeline.shell.engine import Engine


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    made = Engine()
    places = {
        "monitor.source": made.serve_source,
        "monitor.destination": made.serve_destination,
        "shell.local": made.run,
    }
    for name, function in places.items():
        module = ModuleType(f"pipeline.{name}")
        setattr(module, function.__name__, function)
        monkeypatch.setitem(sys.modules, module.__name__, module)
    yield made
    structlog.reset_defaults()


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "c.yaml"
    path.write_text("guest: {kind: synthetic}\n")
    return str(path)
