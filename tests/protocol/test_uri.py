"""URIs: what is taken, what is refused and how."""

import pytest

from protocol.errors import ConfigError, RemoteProtocolError
from protocol.session import Role
from protocol.uri import Uri, parse_uri


@pytest.mark.parametrize(
    ("text", "uri", "endpoint", "data"),
    [
        ("tcp:h:80", Uri("tcp", "h", 80), "tcp://h:80", "tcp://h:*"),
        ("tcp:h:0", Uri("tcp", "h", 0), "tcp://h:*", "tcp://h:*"),
        ("tcp::65535", Uri("tcp", "0.0.0.0", 65535), "tcp://0.0.0.0:65535", "tcp://0.0.0.0:*"),
        ("tcp:[::1]:80", Uri("tcp", "[::1]", 80), "tcp://[::1]:80", "tcp://[::1]:*"),
        ("tcp:[fe80::1%eth0]:8", Uri("tcp", "[fe80::1%eth0]", 8), "tcp://[fe80::1%eth0]:8", None),
        ("unix:/a:b", Uri("unix", path="/a:b"), "ipc:///a:b", "ipc:///a:b.3"),
        ("exec:ssh h a:b", Uri("exec", command="ssh h a:b"), "ipc://", "ipc://.3"),
        ("fd:0", Uri("fd", fd=0), "ipc://", "ipc://.3"),
        ("file:/a:b", Uri("file", path="/a:b"), "ipc://", "ipc://.3"),
    ],
)
def test_a_uri_becomes_endpoints(text: str, uri: Uri, endpoint: str, data: str | None) -> None:
    """Brackets, colons or port 0 that go astray on the way to an address."""
    parsed = parse_uri(text)
    assert parsed == uri
    assert parsed.endpoint == endpoint
    assert data in (None, parsed.data_endpoint(3))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "'' is not a valid migration protocol, expected tcp:HOST:PORT, unix:PATH, exec:"),
        ("tcp", "'tcp' is not a valid migration protocol"),
        ("unix:", "'unix:' is not a valid migration protocol"),
        ("exec:", "'exec:' is not a valid migration protocol"),
        ("defer:x", "'defer:x' is not a valid migration protocol"),
        ("exec:a\0b", "a NUL"),
        ("file:", "'file:' is not a valid migration protocol"),
        ("file:/a\ud800", "is no UTF-8"),
        ("fd:x", "has no number of a descriptor, expected fd:N"),
        ("fd:-1", "has no number of a descriptor"),
        ("fd:12345678", "has no number of a descriptor"),
        ("rdma:h:1", "'rdma:h:1' needs librdmacm and libibverbs, which this build is without"),
        ("TCP:h:1", "'TCP:h:1' is not a valid migration protocol"),
        ("tcp:h", "'tcp:h' has no port, expected tcp:HOST:PORT"),
        ("tcp:h:", "has no port"),
        ("tcp://h:1", "has //, expected tcp:HOST:PORT"),
        ("tcp:a/b:1", "has no port"),
        ("tcp:h:-1", "has no port"),
        ("tcp:h:http", "has no port"),
        ("tcp:h:80 ", "has no port"),
        ("tcp:h:80\n", "has no port"),
        ("tcp:h:\u0663", "has no port"),
        ("tcp:::1:80", "has no port"),
        ("tcp:[::1:80", "has no port"),
        ("tcp:h:65536", "has port 65536, expected 0 to 65535"),
    ],
)
def test_a_bad_uri_is_refused_by_name(text: str, found: str) -> None:
    """A URI that is taken and then fails deep inside a driver."""
    with pytest.raises(ConfigError) as caught:
        parse_uri(text)
    assert found in str(caught.value)


@pytest.mark.parametrize(
    ("role", "told"),
    [
        ("source", "Parameter 'uri' expects a valid migration protocol"),
        ("destination", "unknown migration protocol: ftp:h"),
    ],
)
def test_an_unknown_protocol_in_the_words_of_each_end(role: Role, told: str) -> None:
    """Words that a program which knows QEMU's does not find."""
    with pytest.raises(ConfigError, match=f"^{told}$"):
        parse_uri("ftp:h", role)


@pytest.mark.parametrize("text", ["exec:cat", "fd:3", "file:/x"])
def test_a_stream_has_a_socket_that_stands_for_it(text: str) -> None:
    """A worker of the other machine that is looked for at its path there."""
    uri = parse_uri(text).stands_at("/here/way")
    assert str(uri) == text
    assert uri.endpoint == "ipc:///here/way"
    assert uri.reachable("ipc:///there/way.7") == "ipc:///here/way.7"
    for endpoint in ("ipc:///there/way", "ipc:///there/way.x", "tcp://h:7", "ipc:///w.512"):
        with pytest.raises(RemoteProtocolError, match="is no endpoint of a peer"):
            uri.reachable(endpoint)
