"""Migration URIs: where a destination is found. Only their text; nothing is opened here.

A byte stream (`exec:`, `fd:`, `file:`) has a process on this machine that stands for the other
end; `socket` is where that is found.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from protocol.errors import ConfigError, RemoteProtocolError
from protocol.limits import MAX_LANE
from protocol.session import Role

_TCP = re.compile(r"(?P<host>\[[0-9A-Fa-f:.%\w]+\]|[^:/\[\]\s]*):(?P<port>[0-9]{1,20})")
_PORT_OF = re.compile(r"tcp://.+:(?P<port>[0-9]{1,5})")
_WORKER_OF = re.compile(r"ipc:///.*\.(?P<worker>[0-9]{1,3})")
_FD = re.compile(r"[0-9]{1,7}")
_MAPPED_ADDRESS = re.compile(r"^tcp://\[::ffff:(?P<ipv4>[0-9.]+)\]:")
DEFER = "defer"
"""Not a place yet: an incoming end is told later where to wait."""
UNIX_PATH_BYTES = 103
"""A socket's address has room for 107 bytes; the workers' have .0 to .262 behind the path: 255
workers, and the eight that may take the place of lost ones."""

SCHEMES = ("tcp:HOST:PORT", "unix:PATH", "exec:COMMAND", "fd:N", "file:PATH")


@dataclass(frozen=True)
class Uri:
    """A parsed URI; `endpoint` is its ZeroMQ address.

    `path` is of a socket, or of the file that a guest is saved in; `socket` stands for a stream.
    """

    scheme: str
    host: str = ""
    port: int = 0
    path: str = ""
    command: str = ""
    fd: int = -1
    socket: str = ""

    def __str__(self) -> str:
        match self.scheme:
            case "tcp":
                return f"tcp:{self.host}:{self.port}"
            case "exec":
                return f"exec:{self.command}"
            case "fd":
                return f"fd:{self.fd}"
        return f"{self.scheme}:{self.path}"

    @property
    def is_stream(self) -> bool:
        """Whether everything goes through one stream of bytes."""
        return self.scheme in ("exec", "fd", "file")

    def stands_at(self, socket: str) -> "Uri":
        """The same, with the local socket that stands for the stream."""
        return replace(self, socket=socket)

    @property
    def _socket(self) -> str:
        return self.socket if self.is_stream else self.path

    @property
    def endpoint(self) -> str:
        """Where the control connection is."""
        if self.scheme == "tcp":
            return f"tcp://{self.host}:{self.port or '*'}"
        return f"ipc://{self._socket}"

    def data_endpoint(self, worker: int) -> str:
        """Where decompress worker `worker` binds; a tcp port of its own, or PATH.N."""
        if self.scheme == "tcp":
            return f"tcp://{self.host}:*"
        return f"ipc://{self._socket}.{worker}"

    def reachable(self, endpoint: str) -> str:
        """Where a peer found at this URI listens, if it says `endpoint`.

        Over tcp that is a port of the same host: what the host calls itself need not be what it
        is called here, and no peer sends our memory elsewhere. Of what is at the other end of a
        stream only the number of the worker counts. RemoteProtocolError for an endpoint of
        another kind.
        """
        port = _PORT_OF.fullmatch(endpoint)
        if self.scheme == "tcp" and port:
            return f"tcp://{self.host}:{port['port']}"
        if self.scheme == "unix" and endpoint.startswith("ipc:///"):
            return endpoint
        if self.is_stream and (worker := worker_at(endpoint)) is not None:
            return self.data_endpoint(worker)
        raise RemoteProtocolError(f"{endpoint!r} is no endpoint of a peer at {self}")


def worker_at(endpoint: str) -> int | None:
    """The number of the decompress worker at a socket PATH.N; None for another endpoint."""
    match = _WORKER_OF.fullmatch(endpoint)
    return int(match["worker"]) if match and int(match["worker"]) <= MAX_LANE else None


def parse_uri(text: str, role: Role | None = None) -> Uri:
    """`text` as a Uri; ConfigError names what is wrong and what is allowed.

    Of a protocol that there is not it is said in the words of the end that is given.
    """
    scheme, colon, rest = text.partition(":")
    parse = _PARSERS.get(scheme)
    if parse is not None and colon and rest:
        return parse(text, rest)
    if role == "destination":
        raise ConfigError(f"unknown migration protocol: {text}")
    if role == "source":
        raise ConfigError("Parameter 'uri' expects a valid migration protocol")
    allowed = " or ".join((", ".join(SCHEMES[:-1]), SCHEMES[-1]))
    raise ConfigError(f"uri: {text!r} is not a valid migration protocol, expected {allowed}")


def _checked(text: str) -> int:
    """The size of `text` in bytes; ConfigError where the system cannot be given it."""
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise ConfigError(f"uri: {text!r} is no UTF-8") from None
    if "\0" in text:
        raise ConfigError(f"uri: {text!r} has a path with a NUL")
    return size


def _parse_unix(text: str, path: str) -> Uri:
    size = _checked(text) - len("unix:")
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


def _parse_exec(text: str, command: str) -> Uri:
    _checked(text)
    return Uri("exec", command=command)


def _parse_fd(text: str, number: str) -> Uri:
    if not _FD.fullmatch(number):
        raise ConfigError(f"uri: {text!r} has no number of a descriptor, expected fd:N")
    return Uri("fd", fd=int(number))


def _parse_file(text: str, path: str) -> Uri:
    _checked(text)
    return Uri("file", path=path)


def _refuse_rdma(text: str, _: str) -> Uri:
    raise ConfigError(f"uri: {text!r} needs librdmacm and libibverbs, which this build is without")


_PARSERS: dict[str, Callable[[str, str], Uri]] = {
    "tcp": _parse_tcp,
    "unix": _parse_unix,
    "exec": _parse_exec,
    "fd": _parse_fd,
    "file": _parse_file,
    "rdma": _refuse_rdma,
}


def plain_endpoint(endpoint: str) -> str:
    """`endpoint` with an IPv4 address as people write it, where a socket shows it as IPv6."""
    return _MAPPED_ADDRESS.sub(lambda match: f"tcp://{match['ipv4']}:", endpoint)


def uri_of(endpoint: str) -> str:
    """The URI of a ZeroMQ endpoint."""
    scheme, _, place = endpoint.partition("://")
    return f"{'unix' if scheme == 'ipc' else scheme}:{place}"
