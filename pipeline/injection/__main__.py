"""The helper: makes a process open a userfaultfd, takes it, makes the process close its own.

A short-lived process of its own, which says on the socket that is its standard output how it
went, as JSON, with the descriptor. It has a session of its own and no signal but SIGKILL ends it;
if that comes, its target goes on nevertheless. Everything is got ready before the target stops.
"""

import gc
import json
import os
import signal
import socket
import sys
from contextlib import suppress

from pipeline.injection import ptrace
from pipeline.injection.target import NotPossible, inspect
from pipeline.injection.thread import StoppedThread

_CLOSE, _USERFAULTFD = 3, 323
_USER_MODE_ONLY = 1


def fetch(pid: int, *, sandboxed: bool) -> tuple[int, float]:
    """A userfaultfd of ours for the memory of `pid`, and for how many ms its thread was held."""
    pidfd = os.pidfd_open(pid)
    thread = StoppedThread(pid, inspect(pid, sandboxed=sandboxed))
    with thread:
        theirs = thread.call(_USERFAULTFD, os.O_CLOEXEC | _USER_MODE_ONLY)
        if theirs < 0:
            raise NotPossible(f"gets no userfaultfd: {os.strerror(-theirs)}")
        try:
            ours = ptrace.take_descriptor(pidfd, theirs)
        except OSError as error:
            raise NotPossible(f"does not share its userfaultfd: {error.strerror}") from None
        finally:
            thread.call(_CLOSE, theirs)
    return ours, thread.held_ms


def main(pid: int, *, sandboxed: bool) -> None:
    """Fetch, and say how it went."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # if ignored, no stop would be told
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    gc.disable()
    with suppress(OSError):  # who may not, waits for the processor while the target stands
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    with socket.socket(fileno=1) as output:
        answer, descriptors = answer_for(pid, sandboxed=sandboxed)
        with suppress(BrokenPipeError):  # the command has ended
            socket.send_fds(output, [json.dumps(answer).encode()], descriptors)


def answer_for(pid: int, *, sandboxed: bool) -> tuple[dict[str, object], list[int]]:
    """Fetch: what there is to say, and the descriptor, if there is one."""
    try:
        fd, held_ms = fetch(pid, sandboxed=sandboxed)
    except NotPossible as error:
        return {"error": str(error)}, []
    except ProcessLookupError:
        return {"error": "is gone"}, []
    except OSError as error:
        return {"error": f"cannot be reached: {error.strerror}"}, []
    return {"held_ms": held_ms}, [fd]


if __name__ == "__main__":
    main(int(sys.argv[1]), sandboxed="sandboxed" in sys.argv[2:])
