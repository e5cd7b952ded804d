"""Which links need keys, and which keys a configuration names for them."""

from pathlib import Path

import pytest

from pipeline.config.keys import make_keys
from pipeline.config.links import client_keys, is_loopback, protection, server_keys
from pipeline.config.model import Security
from protocol.errors import ConfigError
from protocol.uri import parse_uri

NOTHING = Security()
KEYS = Security(keys=Path("keys"), peers=("x",))
INSECURE = Security(insecure=True)
ELSEWHERE = ("tcp:0.0.0.0:1", "tcp::1", "tcp:[::]:1", "tcp:192.0.2.1:1", "tcp:host.example:1")


@pytest.mark.parametrize(
    ("host", "local"),
    [
        *((host, True) for host in ("127.0.0.1", "127.255.0.9", "[::1]", "localhost")),
        *((host, True) for host in ("::1", "[::ffff:127.0.0.1]")),
        *((host, False) for host in ("0.0.0.0", "", "*", "[::]", "128.0.0.1", "10.0.0.1")),
        *((host, False) for host in ("[::ffff:10.0.0.1]", "[fe80::1]", "localhost.example")),
        *((host, False) for host in ("127.0.0.1.example", "127.1", "eth0", "lo")),
    ],
)
def test_what_is_this_machine_alone(host: str, local: bool) -> None:
    """A port that is open to the network without keys, for a name that looks local."""
    assert is_loopback(host) is local


@pytest.mark.parametrize(
    ("uri", "security", "found"),
    [
        ("unix:/tmp/x", NOTHING, "local"),
        ("unix:/tmp/x", KEYS, "local"),
        ("tcp:127.0.0.1:1", NOTHING, "local"),
        ("tcp:[::1]:1", INSECURE, "local"),
        ("tcp:127.0.0.1:1", KEYS, "keys"),
        *((uri, KEYS, "keys") for uri in ELSEWHERE),
        *((uri, INSECURE, "none") for uri in ELSEWHERE),
        ("tcp:10.0.0.1:1", Security(keys=Path("k"), peers=("x",), insecure=True), "keys"),
    ],
)
def test_what_keeps_others_out(uri: str, security: Security, found: str) -> None:
    """Keys that are there and not used; a warning where nothing is wrong, none where it is."""
    assert protection(security, parse_uri(uri)) == found


@pytest.mark.parametrize("uri", ELSEWHERE)
def test_without_keys_elsewhere_is_refused(uri: str) -> None:
    """A memory that goes over a network for all to read and to write."""
    with pytest.raises(ConfigError, match="pageferry keygen DIR"):
        protection(NOTHING, parse_uri(uri))


@pytest.mark.parametrize(
    ("security", "words"),
    [
        (Security(keys=Path("k")), "security.peers: found none"),
        (Security(peers=("x",)), "security.keys: found none"),
        (Security(peers=("x",), insecure=True), "security.keys: found none"),
    ],
)
def test_half_of_the_keys(security: Security, words: str) -> None:
    """A list of peers that is not looked at, since there is no key."""
    with pytest.raises(ConfigError, match=words):
        protection(security, parse_uri("tcp:127.0.0.1:1"))


def test_what_each_end_takes(tmp_path: Path) -> None:
    """A source that takes the first key of several for the destination's."""
    here, there = make_keys(tmp_path / "here"), make_keys(tmp_path / "there")
    uri = parse_uri("tcp:192.0.2.1:1")
    one = Security(keys=tmp_path / "here", peers=(str(tmp_path / "there/pageferry.key"),))
    two = Security(keys=tmp_path / "here", peers=(*one.peers, here.decode()))
    served, shown = server_keys(two, uri), client_keys(one, uri)
    assert served is not None
    assert shown is not None
    assert (served.pair.public, served.peers) == (here, frozenset({here, there}))
    assert (shown.pair.public, shown.server) == (here, there)
    with pytest.raises(ConfigError, match="found 2 keys, expected one at the source"):
        client_keys(two, uri)
    assert served.pair.secret.decode() not in repr((served, shown))
