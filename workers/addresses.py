"""Who is, or was, at the other end of a tcp connection that ZeroMQ holds."""

import os
import socket
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

_TABLES = (Path("/proc/self/net/tcp"), Path("/proc/self/net/tcp6"))
_CLOSED_HERE = {"04", "05", "06", "09", "0B"}
"""FIN_WAIT 1 and 2, TIME_WAIT, LAST_ACK, CLOSING, as the kernel's tables write them."""
LOOK_NS = 1_000_000_000
"""Between two looks at those: they may be long."""


def plain_host(host: str) -> str:
    """`host` as people write it, where a socket shows IPv4 as IPv6."""
    return host.removeprefix("::ffff:") if "." in host else host


def with_port(host: str, port: int) -> str:
    """An address in one text."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def maybe_peer(fd: int, port: int) -> str | None:
    """The other end of connection `fd` of local `port`; None where it is closed by now."""
    try:
        with socket.socket(fileno=os.dup(fd)) as held:
            if held.getsockname()[1] != port:
                return None  # the number belongs to something else by now
            host, remote = held.getpeername()[:2]
    except (OSError, IndexError, TypeError):
        return None
    return with_port(plain_host(host), remote)


class Closed:
    """The other ends of connections of a local port that this end has closed, each given once.

    The kernel remembers them for a while, unless what the other end said was not read.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._known: set[str] = set()
        self._fresh: list[str] = []
        self._looked_ns = -LOOK_NS

    def skip(self, address: str) -> None:
        """That one is known."""
        self._known.add(address)

    def maybe_next(self, now_ns: int) -> str | None:
        """One that was not given yet."""
        if now_ns - self._looked_ns >= LOOK_NS:
            self._looked_ns = now_ns
            found = {address for table in _TABLES for address in closed_in(table, self._port)}
            self._fresh = sorted(found - self._known)
            self._known = found
        return self._fresh.pop() if self._fresh else None


def closed_in(table: Path, port: int) -> list[str]:
    """The remote addresses in one of the kernel's tables that `port` has closed."""
    try:
        rows = [line.split()[1:4] for line in table.read_text().splitlines()[1:]]
    except OSError:  # no IPv6 here
        return []
    here = f":{port:04X}"
    return [
        _address(remote)
        for local, remote, state in rows
        if state in _CLOSED_HERE and local.endswith(here)
    ]


def _address(text: str) -> str:
    """`0100007F:A1B2` as 127.0.0.1:41394: words in the machine's order, then the port."""
    host, _, port = text.partition(":")
    words = bytes.fromhex(host)
    raw = b"".join(words[at : at + 4][::-1] for at in range(0, len(words), 4))
    address = IPv4Address(raw) if len(raw) == 4 else IPv6Address(raw)
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return with_port(str(mapped or address), int(port, 16))
