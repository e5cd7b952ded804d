"""Migration URIs: where a destination listens. Only their text; nothing is opened here."""

import re
from dataclasses import dataclass

from protocol.errors import ConfigError, RemoteProtocolError

_TCP = re.compile(r"(?P<host>\[[0-9A-Fa-f:.%\w]+\]|[^:/\[\]\s]*):(?P<port>[0-9]{1,5})")
_PORT_OF = re.compile(r"tcp://.+:(?P<port>[0-9]{1,5})")
_MAPPED_ADDRESS = re.compile(r"^tcp://\[::ffff:(?P<ipv4>[0-9.]+)\]:")
DEFER = "defer"
"""Not a place yet: an incoming end is told later where to wait."""
UNIX_PATH_BYTES = 103
"""A socket's address has room for 107 bytes; the workers' have .0 to .254 behind the path."""

SCHEMES = ("tcp:HOST:PORT", "unix:PATH")


@dataclass(frozen=True)
class Uri:
    """A parsed URI; `endpoint` is its ZeroMQ address."""

    scheme: str
    host: str = ""
    port: int = 0
    path: str = ""

    def __str__(self) -> str:
        return f"unix:{self.path}" if self.scheme == "unix" else f"tcp:{self.host}:{self.port}"

    @property
    def endpoint(self) -> str:
        """Where the control connection is."""
        if self.scheme == "unix":
            return f"ipc://{self.path}"
        return f"tcp://{self.host}:{self.port or '*'}"

    def data_endpoint(self, worker: int) -> str:
        """Where decompress worker `worker` binds; a tcp port of its own, or PATH.N."""
        if self.scheme == "unix":
            return f"ipc://{self.path}.{worker}"
        return f"tcp://{self.host}:*"

    def reachable(self, endpoint: str) -> str:
        """Where a peer found at this URI listens, if it says `endpoint`.

        Over tcp that is a port of the same host: what the host calls itself need not be what it
        is called here, and no peer sends our memory elsewhere. RemoteProtocolError for an
        endpoint of another kind.
        """
        match = _PORT_OF.fullmatch(endpoint)
        if self.scheme == "tcp" and match:
            return f"tcp://{self.host}:{match['port']}"
        if self.scheme == "unix" and endpoint.startswith("ipc:///"):
            return endpoint
        raise RemoteProtocolError(f"{endpoint!r} is no endpoint of a peer at {self}")


def parse_uri(text: str) -> Uri:
    """`text` as a Uri; ConfigError names what is wrong and what is allowed."""
    scheme, colon, rest = text.partition(":")
    if scheme == "unix" and colon and rest:
        return _parse_unix(text, rest)
    if scheme == "tcp" and colon:
        return _parse_tcp(text, rest)
    allowed = " or ".join(SCHEMES)
    raise ConfigError(f"uri: {text!r} is not a valid migration protocol, expected {allowed}")


def _parse_unix(text: str, path: str) -> Uri:
    try:
        size = len(path.encode())
    except UnicodeEncodeError:
        raise ConfigError(f"uri: {text!r} is no UTF-8") from None
    if "\0" in path:
        raise ConfigError(f"uri: {text!r} has a path with a NUL")
    if size > UNIX_PATH_BYTES:
        raise ConfigError(
            f"uri: {text!r} has a path of {size} bytes, expected at most {UNIX_PATH_BYTES}"
        )
    return Uri("unix", path=path)


def _parse_tcp(text: str, rest: str) -> Uri:
    if rest.startswith("//"):
        raise ConfigError(f"uri: {text!r} has //, expected tcp:HOST:PORT")
    match = _TCP.fullmatch(rest)
    if match is None:
        raise ConfigError(f"uri: {text!r} has no port, expected tcp:HOST:PORT")
    port = int(match["port"])
    if port > 65535:
        raise ConfigError(f"uri: {text!r} has port {port}, expected 0 to 65535")
    return Uri("tcp", host=match["host"] or "0.0.0.0", port=port)


def plain_endpoint(endpoint: str) -> str:
    """`endpoint` with an IPv4 address as people write it, where a socket shows it as IPv6."""
    return _MAPPED_ADDRESS.sub(lambda match: f"tcp://{match['ipv4']}:", endpoint)
