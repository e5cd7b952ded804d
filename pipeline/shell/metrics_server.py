"""Where Prometheus scrapes a command: an HTTP server that takes few clients, and ends at once.

One thread listens, each client has one more; all are gone when the server is closed.
"""

import re
import socket
from contextlib import suppress
from socketserver import TCPServer, ThreadingMixIn
from threading import Lock, Thread
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from protocol.errors import ConfigError

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

MAX_CLIENTS = 8
CLIENT_SECONDS = 2.0
"""How long one may take until it has said more."""
_END_SECONDS = 0.1
"""How long it may take until the thread that listens sees that it is to end."""
_ADDRESS = re.compile(r"((?P<host>\[[0-9A-Fa-f:.%\w]+\]|[^:/\[\]\s]*):)?(?P<port>[0-9]{1,5})")
_LOOPBACK = "127.0.0.1"


def parse_address(text: str) -> tuple[str, int]:
    """Host and port of HOST:PORT, :PORT or PORT; ConfigError says what is wrong."""
    match = _ADDRESS.fullmatch(text)
    if match is None:
        raise ConfigError(f"--metrics: found {text!r}, expected HOST:PORT, [IPV6]:PORT or PORT")
    port = int(match["port"])
    if port > 65535:
        raise ConfigError(f"--metrics: found port {port}, expected 0 to 65535")
    return (match["host"] or _LOOPBACK).strip("[]"), port


class _Handler(WSGIRequestHandler):
    timeout = CLIENT_SECONDS

    def log_message(self, *_: object) -> None:
        """A scrape every few seconds is no news."""


class MetricsServer(ThreadingMixIn, WSGIServer):
    """Serves `registry` at `text`, an address, until it is closed; ConfigError where it cannot."""

    request_queue_size = 4 * MAX_CLIENTS  # the many are refused, not kept waiting

    def __init__(self, text: str, registry: "CollectorRegistry") -> None:
        from prometheus_client import make_wsgi_app

        self._clients: set[socket.socket] = set()
        self._changing = Lock()
        host, port = parse_address(text)
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            self.address_family = found[0][0]
            super().__init__(found[0][4], _Handler)  # type: ignore[arg-type]
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ConfigError(f"--metrics: cannot listen at {text}: {reason}") from None
        self.set_app(make_wsgi_app(registry))
        self._listens = Thread(target=self.serve_forever, args=(_END_SECONDS,), daemon=True)
        self._listens.start()

    @property
    def url(self) -> str:
        """Where it is reached on this machine."""
        host, port = self.server_address[:2]
        return f"http://[{host!s}]:{port}" if ":" in str(host) else f"http://{host!s}:{port}"

    def server_bind(self) -> None:
        """As HTTPServer's, but for asking the name service what this machine is called."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = "pageferry", int(self.server_address[1])
        self.setup_environ()

    def verify_request(self, request: Any, client_address: Any) -> bool:  # noqa: ANN401
        """Whether there is room for one more."""
        with self._changing:
            if len(self._clients) >= MAX_CLIENTS:
                return False
            self._clients.add(request)
        return True

    def shutdown_request(self, request: Any) -> None:  # noqa: ANN401
        """That one was served, or refused."""
        with self._changing:
            self._clients.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401
        """A client that goes away in the middle is no news, either."""

    def close(self) -> None:
        """Wait for no request any more, and for whoever is being answered: half an answer would
        be taken for a whole one."""
        self.shutdown()
        self._listens.join()
        with self._changing:
            for client in self._clients:
                with suppress(OSError):
                    client.shutdown(socket.SHUT_RD)
        self.server_close()
