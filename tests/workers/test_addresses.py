"""Addresses of peers, of connections that stand and of those that are closed."""

import os
import socket
from pathlib import Path

import pytest

from workers.addresses import Closed, closed_in, maybe_peer, plain_host, with_port

TABLE = """  sl  local_address rem_address   st tx_queue
   0: 0100007F:115C 0100007F:A1B2 06 00000000:00000000
   1: 0100007F:115C 0100007F:A1B3 01 00000000:00000000
   2: 0100007F:115D 0100007F:A1B4 06 00000000:00000000
"""
TABLE6 = """  sl  local_address remote_address st tx_queue
   0: 0000000000000000FFFF00000100007F:115C 0000000000000000FFFF00000200007F:A1B2 06 0:0
   1: 00000000000000000000000001000000:115C B80D0120000000000000000001000000:0050 04 0:0
"""


def test_the_tables_are_read(tmp_path: Path) -> None:
    """Addresses turned round, a neighbour's connection, or one that stands, taken for refused."""
    for name, text in (("tcp", TABLE), ("tcp6", TABLE6)):
        (tmp_path / name).write_text(text)
    assert closed_in(tmp_path / "tcp", 4444) == ["127.0.0.1:41394"]
    assert closed_in(tmp_path / "tcp6", 4444) == ["127.0.0.2:41394", "[2001:db8::1]:80"]
    assert closed_in(tmp_path / "none", 4444) == []


@pytest.mark.parametrize(
    ("host", "plain"), [("::ffff:192.0.2.1", "192.0.2.1"), ("::1", "::1"), ("192.0.2.1",) * 2]
)
def test_hosts_as_people_write_them(host: str, plain: str) -> None:
    """An address that no firewall rule takes."""
    assert plain_host(host) == plain
    assert with_port("::1", 5) == "[::1]:5"


def test_a_peer_and_then_a_closed_one() -> None:
    """A line without an address; one of somebody else, whose number the descriptor has now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client:
            accepted, _ = listener.accept()
            with accepted:
                mine = with_port(*client.getsockname())
                assert maybe_peer(accepted.fileno(), port) == mine
                assert maybe_peer(accepted.fileno(), port + 1) is None
                assert Closed(port).maybe_next(0) is None
            closed = Closed(port)
            assert [closed.maybe_next(0), closed.maybe_next(0)] == [mine, None]
            skipping = Closed(port)
            skipping.skip(mine)
            assert skipping.maybe_next(0) is None
    with Path(os.devnull).open() as other:
        assert maybe_peer(other.fileno(), port) is None
    assert maybe_peer(1_000_000, port) is None
