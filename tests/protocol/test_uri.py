"""URIs: what is taken, what is refused and how."""

import pytest

from protocol.errors import ConfigError
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
    ],
)
def test_a_uri_becomes_endpoints(text: str, uri: Uri, endpoint: str, data: str | None) -> None:
    """Catches: brackets, colons or port 0 that go astray on the way to an address."""
    parsed = parse_uri(text)
    assert parsed == uri
    assert parsed.endpoint == endpoint
    assert data in (None, parsed.data_endpoint(3))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "'' is not a valid migration protocol, expected tcp:HOST:PORT or unix:PATH"),
        ("tcp", "'tcp' is not a valid migration protocol"),
        ("unix:", "'unix:' is not a valid migration protocol"),
        ("exec:cat", "'exec:cat' is not a valid migration protocol"),
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
    """Catches: a URI that is taken and then fails deep inside a driver."""
    with pytest.raises(ConfigError) as caught:
        parse_uri(text)
    assert found in str(caught.value)
