"""Where a destination listens."""

import socket as plain
from contextlib import closing
from pathlib import Path

import pytest

from pipeline.control_link import Context, ControlLink
from protocol.errors import ConfigError
from protocol.uri import parse_uri
from tests.pipeline.control_link.links import (
    Ends,
)
from tests.protocol.samples import SESSION


def test_an_address_that_is_taken_is_the_users_mistake(ends: Ends, context: Context) -> None:
    """A second destination on the first one's address: it takes over its socket."""
    path = ends.destination.endpoint.removeprefix("ipc://")
    with pytest.raises(ConfigError, match="somebody does"):
        ControlLink.bind(context, parse_uri(f"unix:{path}"))
    ends.greet()


def test_a_port_that_is_taken_is_the_users_mistake(context: Context) -> None:
    """A traceback of ZeroMQ's instead of a line."""
    with plain.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"cannot listen on tcp:127.0.0.1:{port}: Address"):
            ControlLink.bind(context, parse_uri(f"tcp:127.0.0.1:{port}"))


def test_a_file_in_the_way_is_left_alone(context: Context, folder: Path) -> None:
    """A guest's memory deleted because its path was given as the address."""
    path = folder / "precious"
    path.write_text("data")
    with pytest.raises(ConfigError, match="is a file or folder"):
        ControlLink.bind(context, parse_uri(f"unix:{path}"))
    assert path.read_text() == "data"
    path.unlink()


def test_a_socket_that_nobody_listens_on_is_taken_over(context: Context, folder: Path) -> None:
    """A destination that was killed, and whose address cannot be used again."""
    path = folder / "control"
    with plain.socket(plain.AF_UNIX) as dead:
        dead.bind(str(path))
    with closing(ControlLink.bind(context, parse_uri(f"unix:{path}"))) as link:
        assert link.endpoint == f"ipc://{path}"


def test_a_free_port_is_picked_and_told(context: Context) -> None:
    """Port 0 told to the source as 0."""
    with closing(ControlLink.bind(context, parse_uri("tcp:127.0.0.1:0"))) as link:
        host, port = link.endpoint.rsplit(":", 1)
        assert "127.0.0.1" in host
        assert int(port) > 0


@pytest.mark.parametrize("uri", ["tcp:127.0.0.1:0", "tcp:127.0.0.1.1.1:0"])
def test_an_address_that_nobody_can_be_at(context: Context, uri: str) -> None:
    """A traceback of ZeroMQ for a user's mistake."""
    with pytest.raises(ConfigError, match="uri: cannot connect to tcp:"):
        ControlLink.connect(context, parse_uri(uri), SESSION)


def test_where_it_listens_is_told_as_people_write_it(context: Context) -> None:
    """A user who copies the address of the log and gets an IPv6 one for an IPv4 one."""
    with closing(ControlLink.bind(context, parse_uri("tcp:127.0.0.1:0"))) as link:
        assert link.endpoint.startswith("tcp://127.0.0.1:")
