"""Signals that reach a process in the moment in which a thread of it is held."""

import subprocess
from pathlib import Path

from pipeline.injection.attach import attach
from tests.pipeline.guests.helpers import python, wait_until
from tests.pipeline.injection.victims import needs_uffd, threads_state, victim

pytestmark = needs_uffd

STOP_AND_GO = "for i in $(seq 300); do kill -STOP $1; kill -CONT $1; done"
STORM = "while kill -USR1 $1; do :; done"
COUNT = """
import signal
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])  # in the threads of numpy, too
import ctypes, mmap, os
import numpy as np
libc = ctypes.CDLL(None, use_errno=True)
ran, told = os.pipe()
os.set_blocking(told, False)
os.set_blocking(ran, False)
signal.set_wakeup_fd(told)
signal.signal(signal.SIGUSR1, lambda *_: None)
memory = np.frombuffer(mmap.mmap(-1, 4096), np.uint8)
print(memory.ctypes.data, flush=True)
asked = (ctypes.c_int * 2)(0, 1)
none = (ctypes.c_ulong * 16)()
interrupted = handled = 0
while libc.ppoll(asked, 1, None, none) < 0:
    interrupted += 1
    handled += len(os.read(ran, 4096))
print(interrupted, handled, flush=True)
"""


def test_stop_and_go_on_are_not_lost(tmp_path: Path) -> None:
    """A stop of ours that swallows SIGSTOP or SIGCONT; one that hangs on them."""
    with victim(tmp_path, "poll") as found:
        for _ in range(10):
            with subprocess.Popen(["sh", "-c", STOP_AND_GO, "sh", str(found.pid)]) as sender:
                while sender.poll() is None:
                    found.attach().close()
        wait_until(lambda: not threads_state(found.pid) & {"T", "t"})
        with found.attach() as attached:
            found.check(attached)
        assert found.end()[:2] == (1, 0)


def test_a_wait_for_signals_ends_whenever_one_was_handled() -> None:
    """A ppoll that is made once more though a handler ran: whoever waits for it waits for ever."""
    with python(COUNT) as (process, address):
        sender = subprocess.Popen(["sh", "-c", STORM, "sh", str(process.pid)])
        for _ in range(30):
            attach(process.pid, [(int(address), 4096)]).close()
        sender.kill()
        sender.wait()
        assert process.stdin
        assert process.stdout
        process.stdin.write("\n")
        process.stdin.flush()
        interrupted, handled = map(int, process.stdout.readline().split())
        assert interrupted == handled > 100
