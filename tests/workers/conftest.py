"""What tests with worker processes share."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq


@pytest.fixture
def context(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[zmq.Context[zmq.Socket[bytes]]]:
    """The ZeroMQ context of this process's end; nothing may be left in the end.

    Workers are spared the import of pytest, which they would do as if it were their program.
    """
    assert folder.is_dir()
    monkeypatch.delattr(sys.modules["__main__"], "__file__", raising=False)
    made: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    yield made
    made.destroy(linger=0)
