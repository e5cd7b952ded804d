"""The fork server of a command: it has the workers' imports done and no ZeroMQ context, because
a context never crosses a fork.

Ten workers are up in 0.27 s that way, 0.91 s when spawned.
"""

import fcntl
import multiprocessing
import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from multiprocessing import forkserver, resource_tracker
from multiprocessing.context import ForkServerContext
from pathlib import Path
from threading import Lock

from protocol.errors import WorkerError

_PRELOAD = ["workers.compress", "workers.decompress", "zstandard", "lz4.block"]
_starting = Lock()
"""Standard streams are everybody's: one thread at a time puts them aside."""


def fork_server() -> ForkServerContext:
    """What starts processes by it."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOAD)
    return context


def warm_up() -> None:
    """Start the fork server, once; it does its imports while the caller goes on.

    A signal for the whole process group is a cancel, and the command's to hear. WorkerError
    where it cannot be started.
    """
    fork_server()
    try:
        with _starting, nullcontext() if _pid() is not None else _standard_streams_aside():
            resource_tracker.ensure_running()  # it would unblock the signals again
            with _signals_blocked():
                forkserver.ensure_running()
    except OSError as error:
        raise WorkerError(f"the fork server did not start: {error}") from None


@contextmanager
def _standard_streams_aside() -> Iterator[None]:
    """While this lasts standard input and output are nothing: where a byte stream is there, who
    is started now would keep it open, whatever becomes of it."""
    with ExitStack() as back, Path(os.devnull).open("r+b", buffering=0) as nothing:
        for number in (0, 1):
            with suppress(OSError):  # it is closed
                kept = fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, 3)
                back.callback(os.close, kept)
                back.callback(os.dup2, kept, number)
                os.dup2(nothing.fileno(), number)
        yield


@contextmanager
def _signals_blocked() -> Iterator[None]:
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _pid() -> int | None:
    pid: int | None = getattr(forkserver._forkserver, "_forkserver_pid", None)
    return pid


def wake_fork_server() -> None:
    """Let a fork server that was stopped go on, so that it sees that its command ends."""
    pid = _pid()
    if pid is not None:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
