"""Between a command and a process that stands for the other end: who is there, and the last word.

A socket pair. The process says in the end why it ended; the command says when it is over, and its
end closes with it, however it ends.
"""

import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.util import get_temp_dir
from pathlib import Path
from shutil import rmtree

import structlog

from protocol.errors import MigrationError
from protocol.limits import REASON_CHARS
from workers.memory import PassedFd, keep_large_allocations

OVER = b"\0over"
_UNHEARD = (signal.SIGINT, signal.SIGHUP, signal.SIGTERM)


class LeashCut(BaseException):
    """It is over, or the command has ended."""


class Leash:
    """The process's end; owned by its only thread. `is_orphan`: the command has ended."""

    def __init__(self, passed: PassedFd) -> None:
        self.socket = socket.socket(fileno=passed.fd)
        self.socket.setblocking(False)
        self.is_orphan = False

    def say(self, reason: str) -> None:
        """Tell the command why this process ends, if it is there."""
        with suppress(OSError):
            self.socket.send(reason[:REASON_CHARS].encode(errors="replace"))

    def check(self) -> None:
        """LeashCut where it is over."""
        try:
            self.is_orphan = not self.socket.recv(len(OVER))
        except BlockingIOError:
            return
        except ConnectionError:  # the command has ended, and not heard the last word
            self.is_orphan = True
        raise LeashCut


def stand(passed: PassedFd, folder: Path, body: Callable[[Leash], None]) -> None:
    """Run `body`, on the leash in `passed`, as a process that stands for an end: signals, its last
    word, the end.

    The folder of its sockets goes with it where the command has ended first.
    """
    for number in _UNHEARD:
        signal.signal(number, lambda *_: None)  # no SIG_IGN: a command would inherit it
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _UNHEARD)
    keep_large_allocations()
    leash = Leash(passed)
    try:
        with suppress(LeashCut):
            body(leash)
    except (MigrationError, OSError) as error:
        leash.say(str(error))
    except Exception as error:
        structlog.get_logger().error("unexpected error: a bug of pageferry", exc_info=error)
        leash.say(f"{type(error).__name__}: {error}")
    finally:
        if leash.is_orphan:
            for left in (folder, get_temp_dir()):
                rmtree(left, ignore_errors=True)
