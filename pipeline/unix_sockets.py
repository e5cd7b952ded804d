"""UNIX sockets: whether somebody listens at their files, who that is, and their removal."""

import stat
import struct
from contextlib import suppress
from pathlib import Path
from socket import AF_UNIX, SO_PEERCRED, SOCK_STREAM, SOL_SOCKET, SocketKind, socket
from typing import NamedTuple

from protocol.errors import ConfigError

_CREDENTIALS = struct.Struct("iii")


class Credentials(NamedTuple):
    """Of a process, when it made its socket; pid 0: one that this namespace does not have."""

    pid: int
    user: int
    group: int


def peer_of(connection: socket) -> Credentials:
    """Who is at the other end, by the kernel's word: struct ucred of unix(7)."""
    packed = connection.getsockopt(SOL_SOCKET, SO_PEERCRED, _CREDENTIALS.size)
    return Credentials(*_CREDENTIALS.unpack(packed))


def check_free(path: Path, key: str, kind: SocketKind = SOCK_STREAM) -> None:
    """ConfigError, which names `key`, where a socket that is bound to `path` would do harm.

    A socket that nobody listens at any more does none: who binds there replaces it.
    """
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise ConfigError(f"{key}: {path}: {error.strerror}") from None
    if not stat.S_ISSOCK(mode):
        raise ConfigError(f"{key}: {path} is a file or folder, expected a path for a new socket")
    if _is_listened_at(path, kind):
        raise ConfigError(f"{key}: cannot listen on {path}: somebody does")


def remove_stale(path: Path) -> None:
    """Remove the file of a socket that nobody listens at any more, if it is one."""
    with suppress(OSError):
        if stat.S_ISSOCK(path.lstat().st_mode) and not _is_listened_at(path, SOCK_STREAM):
            path.unlink()


def _is_listened_at(path: Path, kind: SocketKind) -> bool:
    with socket(AF_UNIX, kind) as probe:
        probe.settimeout(1)  # for one that hangs
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return False
        except OSError:  # of another kind, or full: somebody is there
            return True
        return True
