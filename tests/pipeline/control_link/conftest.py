"""What tests of the control connection share."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import zmq

from pipeline.control_link import Context, ControlLink
from protocol.uri import parse_uri
from tests.pipeline.clocks import Clock
from tests.pipeline.control_link.links import Ends
from tests.protocol.samples import SESSION


@pytest.fixture
def context(folder: Path) -> Iterator[Context]:
    """A ZeroMQ context; nothing may be left in the end."""
    assert folder.is_dir()
    made: Context = zmq.Context()
    yield made
    made.destroy(linger=0)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The time, as the links see it."""
    return Clock(monkeypatch, "pipeline.control_link")


@pytest.fixture
def ends(context: Context, folder: Path, clock: Clock) -> Iterator[Ends]:
    """Two ends over a UNIX socket, which have not said anything yet."""
    assert clock
    uri = parse_uri(f"unix:{folder / 'control'}")
    with (
        closing(ControlLink.bind(context, uri)) as destination,
        closing(ControlLink.connect(context, uri, SESSION)) as source,
    ):
        yield Ends(source, destination)


@pytest.fixture
def stranger(context: Context, folder: Path) -> Iterator[zmq.Socket[bytes]]:
    """A bare connection to the destination."""
    with closing(context.socket(zmq.DEALER)) as socket:
        socket.linger = 0
        socket.connect(f"ipc://{folder / 'control'}")
        yield socket
