"""Files of UNIX sockets: whether somebody listens there, and their removal."""

import stat
from contextlib import suppress
from pathlib import Path
from socket import AF_UNIX, SOCK_STREAM, SocketKind, socket

from protocol.errors import ConfigError


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
