"""The two ends of a byte stream, and what is behind them: descriptors of the user's, or a command.

Nothing here waits but the end.
"""

import fcntl
import os
import signal
import socket
import stat
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic, sleep

from pipeline.descriptors import is_inherited
from protocol.errors import ConfigError, PeerLost

END_SECONDS = 2.0
"""For a command to end by itself once its input has ended; then it is told, then killed."""
LOOK_SECONDS = 0.05


@dataclass
class Stream:
    """Where to read and where to write; `name` is what the user calls it.

    `may_have_guest`: the destination that is behind it was told to commit.
    """

    name: str
    reads: int
    writes: int
    command: "subprocess.Popen[bytes] | None" = None
    may_have_guest: bool = False

    def __post_init__(self) -> None:
        for fd in (self.reads, self.writes):
            os.set_blocking(fd, False)

    def read(self, room: memoryview) -> int:
        """How many bytes came; PeerLost at the end. BlockingIOError where none are there."""
        try:
            count = os.readv(self.reads, [room])
        except BlockingIOError:
            raise
        except OSError as error:
            raise PeerLost(f"{self.name}: the stream broke: {error.strerror}") from None
        if count == 0:
            raise PeerLost(f"{self.name}: the stream ended{self._obituary()}")
        return count

    def write(self, pieces: Sequence[memoryview]) -> int:
        """How many bytes it took, 0 where it takes none now; OSError where nobody reads."""
        with suppress(BlockingIOError):
            return os.writev(self.writes, pieces)
        return 0

    def close_writing(self) -> None:
        """Nothing more follows: let the other end see that. Idempotent."""
        if self.writes < 0:
            return
        if self.writes != self.reads and not stat.S_ISSOCK(os.fstat(self.writes).st_mode):
            os.close(self.writes)
        else:
            with suppress(OSError), socket.socket(fileno=os.dup(self.writes)) as two_way:
                two_way.shutdown(socket.SHUT_WR)
        self.writes = -1

    def _obituary(self) -> str:
        if self.command is None:
            return ""
        with suppress(subprocess.TimeoutExpired):
            code = self.command.wait(END_SECONDS / 2)
            told = f"was killed by signal {-code}" if code < 0 else f"exited with {code}"
            return f", the command {told}"
        return ", the command has closed its output"

    def end_command(self) -> None:
        """See that the command has ended, and all that is left of its process group: what the
        shell leaves behind has as much time as the shell."""
        if self.command is None:
            return
        for number in (signal.SIGTERM, signal.SIGKILL):
            if _has_ended(self.command):
                return
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.command.pid, number)
        with suppress(subprocess.TimeoutExpired):  # of one that is another user's by now
            self.command.wait(END_SECONDS)


def _has_ended(command: "subprocess.Popen[bytes]") -> bool:
    """Whether nobody of its process group is left, in time; nothing tells of that end."""
    deadline = monotonic() + END_SECONDS
    with suppress(subprocess.TimeoutExpired):
        command.wait(END_SECONDS)
    while _is_there(command.pid):
        if monotonic() > deadline:
            return False
        sleep(LOOK_SECONDS)
    return True


def _is_there(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def of_command(command: str) -> Stream:
    """Both pipes of a shell's command, in a session of its own: a signal from the terminal is
    for this end to hear."""
    shell = subprocess.Popen(
        ["/bin/sh", "-c", command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
        bufsize=0,
    )
    assert shell.stdin is not None
    assert shell.stdout is not None
    reads, writes = os.dup(shell.stdout.fileno()), os.dup(shell.stdin.fileno())
    shell.stdout.close()
    shell.stdin.close()
    return Stream(f"exec:{command}", reads, writes, shell)


def take_over(number: int) -> tuple[int, int]:
    """Take over descriptor `number`, which is read, and the one that is written: the same where
    it is a socket, else the next. ConfigError where they are not there.

    Of descriptor 0 standard output is silent from then on, so that nothing gets between.
    """
    two_way = stat.S_ISSOCK(_status(number).st_mode)
    _check(number, os.O_WRONLY, "read")
    _check(number if two_way else number + 1, os.O_RDONLY, "written")
    reads = _moved(number)
    if not two_way:
        return reads, _moved(number + 1)
    if number == 0:
        os.close(_moved(1))
    return reads, os.dup(reads)


def _status(number: int) -> os.stat_result:
    if is_inherited(number):
        with suppress(OSError):
            return os.fstat(number)
    raise ConfigError(f"uri: descriptor {number} is not open: this command was not given it")


def _check(number: int, wrong: int, verb: str) -> None:
    _status(number)
    if fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE == wrong:
        raise ConfigError(f"uri: descriptor {number} cannot be {verb}")


def _moved(number: int) -> int:
    """Another descriptor for the same, which children do not get; the old one is free, or of the
    standard ones silent."""
    moved: int = fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, 3)
    if number > 2:
        os.close(number)
    else:
        silent = os.open(os.devnull, os.O_RDWR)
        os.dup2(silent, number)
        os.close(silent)
    return moved
