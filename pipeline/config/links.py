"""Whether the links at a URI need keys, and the keys that the configuration names for them."""

import socket
from ipaddress import IPv6Address, ip_address
from typing import Literal

import structlog

from pipeline.config.keys import read_pair, read_peer
from pipeline.config.model import Security
from protocol.errors import ConfigError
from protocol.uri import Uri
from workers.keys import ClientKeys, ServerKeys

Protection = Literal["local", "keys", "none"]
WITHOUT = "links are neither encrypted nor authenticated: security.insecure is true"


def check_host(uri: Uri) -> None:
    """ConfigError for a host that has no address, which no keys would help; asks who knows names.

    The interfaces of this machine, and `*` for all of them, may be listened at.
    """
    known = {"*", *(name for _, name in socket.if_nameindex())}
    if uri.scheme != "tcp" or uri.host in known:
        return
    try:
        socket.getaddrinfo(uri.host.strip("[]"), None)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"uri: {uri}: no address of {uri.host} is known: {reason}") from None


def server_keys(security: Security, uri: Uri) -> ServerKeys | None:
    """What the destination at `uri` asks of who connects; ConfigError where that is not said."""
    if protection(security, uri) != "keys":
        return None
    assert security.keys is not None, "otherwise there are no keys"
    return ServerKeys(read_pair(security.keys), frozenset(map(read_peer, security.peers)))


def client_keys(security: Security, uri: Uri) -> ClientKeys | None:
    """What the source shows, and wants to see, at `uri`; ConfigError where that is not said."""
    if protection(security, uri) != "keys":
        return None
    if len(security.peers) != 1:
        raise ConfigError(
            f"security.peers: found {len(security.peers)} keys, expected one at the source:"
            " the destination's"
        )
    assert security.keys is not None, "otherwise there are no keys"
    return ClientKeys(read_pair(security.keys), read_peer(security.peers[0]))


def warn_without_keys(security: Security, uri: Uri) -> None:
    """Of links that are about to be opened, and that others can read."""
    if protection(security, uri) == "none":
        structlog.get_logger().warning(WITHOUT)


def protection(security: Security, uri: Uri) -> Protection:
    """What keeps others out of the links at `uri`; ConfigError where nothing would.

    Pure: a host name is looked up by nobody, and only `localhost` is known for this machine.
    """
    if uri.scheme != "tcp":
        return "local"
    if security.keys is not None and not security.peers:
        raise ConfigError("security.peers: found none, expected the public key of the other end")
    if security.peers and security.keys is None:
        raise ConfigError("security.keys: found none beside security.peers: `pageferry keygen DIR`")
    if security.keys is not None:
        return "keys"
    if is_loopback(uri.host):
        return "local"
    if security.insecure:
        return "none"
    raise ConfigError(
        f"uri: {uri} is not of this machine alone, and there are no keys: make some by"
        " `pageferry keygen DIR`, name them in security.keys and security.peers at both ends"
        " (or set security.insecure: true)"
    )


def is_loopback(host: str) -> bool:
    """Whether only this machine can be at `host`, as a URI says it."""
    if host == "localhost":
        return True
    try:
        address = ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return (mapped or address).is_loopback
