"""Memory of a process that knows nothing of us, write-protected so that its writes can be scanned.

The registration hangs on a descriptor of this process alone, so that it ends with it, however it
ends: nothing is left in the target.
"""

import errno
import json
import os
import platform
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from pipeline import uffd
from pipeline.injection.target import NotPossible, inspect
from protocol.errors import GuestError

_ANSWER_S = 15.0
"""The helper gives up a stop after 2 s and a system call after 2 s; the rest is for its start."""
_ANSWER_BYTES = 4096
_ROOT = Path(__file__).parents[2]

Range = tuple[int, int]
"""Address and length in bytes."""


@dataclass
class Attached:
    """The `ranges` of process `pid` can be scanned until `close`.

    `fd` is the userfaultfd, ours; `held_ms` how long a thread of the process stood for it.
    """

    pid: int
    ranges: list[Range]
    fd: int
    held_ms: float

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Take the protection off; the process is not touched. Idempotent."""
        if self.fd >= 0:
            uffd.unprotect(self.fd, self.ranges)
            os.close(self.fd)
            self.fd = -1


def attach(pid: int, ranges: Sequence[Range], *, sandboxed: bool = False) -> Attached:
    """Write-protect `ranges` of process `pid`, asynchronously, as `uffd.register` does.

    `sandboxed`: its filter of system calls is known not to end it for userfaultfd or close.
    GuestError where it cannot be had: the process goes on as before.
    """
    if (why := why_not(pid, sandboxed=sandboxed)) is not None:
        raise _refused(pid, why)
    fd, held_ms = _fetch(pid, sandboxed=sandboxed)
    attached = Attached(pid, list(ranges), fd, held_ms)
    try:
        uffd.protect(fd, ranges)
    except OSError as error:
        attached.close()
        raise _refused(pid, _why(error)) from None
    return attached


def why_not(pid: int, *, sandboxed: bool = False) -> str | None:
    """What can be seen to stand in the way, without touching the process; None where nothing is."""
    if platform.machine() != "x86_64":
        return f"this works on x86_64, not on {platform.machine()}"
    try:
        inspect(pid, sandboxed=sandboxed)
    except NotPossible as error:
        return f"it {error}"
    return uffd.probe()


def _why(error: OSError) -> str:
    match error:
        case BlockingIOError() | OSError(errno=errno.EBUSY):
            return "its memory is watched by another userfaultfd"
        case ProcessLookupError():
            return "it is gone"
        case _:
            return f"the kernel does not protect its memory: {error.strerror}"


def _fetch(pid: int, *, sandboxed: bool) -> tuple[int, float]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        ours.settimeout(_ANSWER_S)
        with theirs:
            helper = _start(pid, theirs, sandboxed=sandboxed)
        try:
            data, descriptors, _, _ = socket.recv_fds(ours, _ANSWER_BYTES, 1)
        except TimeoutError:
            data, descriptors = b'{"error": "the helper does not answer"}', []
        finally:
            helper.kill()
            helper.wait()
    answer = json.loads(data or b'{"error": "the helper died"}')
    if not descriptors:
        raise _refused(pid, answer["error"])
    return descriptors[0], answer["held_ms"]


def _start(pid: int, output: socket.socket, *, sandboxed: bool) -> subprocess.Popen[bytes]:
    path = os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH"))))
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "pipeline.injection", str(pid), *["sandboxed"] * sandboxed],
        env={**os.environ, "PYTHONPATH": path},
        stdin=subprocess.DEVNULL,
        stdout=output.fileno(),
        start_new_session=True,  # what ends our group is not to meet it
    )


def _refused(pid: int, why: str) -> GuestError:
    return GuestError(f"process {pid} cannot be tracked from outside: {why}")
