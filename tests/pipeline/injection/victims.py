"""Processes that know nothing of us: each waits in its own way while a thread of it writes pages.

A wait is the bare system call, so that one that came back too early is not hidden.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from pipeline import uffd
from pipeline.injection.attach import Attached, attach
from pipeline.uffd import WrittenScan
from protocol.limits import PAGE_BYTES
from tests.pipeline.guests.helpers import python, wait_until

WHY_NOT = uffd.probe()
needs_uffd = pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT))
ROOT = Path(__file__).parents[3]
PAGES = 64
LIMIT_S = 2.5
RESTARTED = 219
"""restart_syscall: what goes on with a wait that has a limit."""
NUMBERS = {
    "poll": 7,
    "poll-limited": 7,
    "ppoll": 271,
    "nanosleep": 35,
    "clock_nanosleep": 230,
    "futex": 202,
    "futex-limited": 202,
    "read": 0,
    "busy": None,
    "vectors": None,
}
"""How a victim can wait, and the system call in which it is then; None: it computes."""
LIMITED = ("poll-limited", "nanosleep", "clock_nanosleep", "futex-limited")

SETREGS_STEP = 6
"""Behind seize, interrupt, registers, mask, extended state, the parachute."""
KILLED_BEFORE = """
import os, signal, sys
from pipeline.injection import __main__, ptrace, thread
left = int(sys.argv[2])

def stepwise(does):
    def step(*arguments):
        global left
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1
        return does(*arguments)
    return step

thread.request = stepwise(ptrace.request)
ptrace.write_memory = stepwise(ptrace.write_memory)
ptrace.take_descriptor = stepwise(ptrace.take_descriptor)
signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
__main__.fetch(int(sys.argv[1]), sandboxed=False)
"""

_BODY = """
import ctypes, mmap, os, sys, threading, time
import numpy as np

libc = ctypes.CDLL(None, use_errno=True)
memory = np.frombuffer(mmap.mmap(os.open(sys.argv[1], os.O_RDWR), 0), np.uint8)
reads, writes = os.pipe()
READS = (ctypes.c_int * 2)(reads, 1)
LIMIT = (ctypes.c_long * 2)(2, 500_000_000)
word = ctypes.c_int(0)
FUTEX = 202, ctypes.byref(word), 128, 0
numbers = np.array([0, 1, 2, 3, 4, 5, 6, 7, 0, 0, 0, 0, 0], np.uint64)
# ymm15, ymm3 = numbers[:4], numbers[4:8]; while not numbers[12]: pass; numbers[8:12] = their sum
VECTORS = bytes.fromhex("c57e6f3fc5fe6f5f20837f600074fac505d4fbc57e7f7f40c5f877c3")

def compute():
    sums = set()
    while not word.value:
        sums.add(sum(range(1000)))
    return 0 if sums == {499500} else -1

def vectors():
    code = mmap.mmap(-1, 4096, prot=7)
    code.write(VECTORS)
    ctypes.CFUNCTYPE(None, ctypes.c_void_p)(np.frombuffer(code, np.uint8).ctypes.data)(
        numbers.ctypes.data
    )
    return 0 if numbers[8:12].tolist() == [4, 6, 8, 10] else -1

waits = {
    "poll": lambda: libc.poll(READS, 1, -1),
    "poll-limited": lambda: libc.poll(None, 0, 2500),
    "ppoll": lambda: libc.ppoll(READS, 1, None, None),
    "nanosleep": lambda: libc.syscall(35, LIMIT, None),
    "clock_nanosleep": lambda: libc.clock_nanosleep(1, 0, LIMIT, None),
    "futex": lambda: libc.syscall(*FUTEX, None),
    "futex-limited": lambda: libc.syscall(*FUTEX, LIMIT),
    "read": lambda: libc.read(reads, ctypes.create_string_buffer(1), 1),
    "busy": compute,
    "vectors": vectors,
}

def obey():
    for line in sys.stdin:
        if line == "go\\n":
            word.value = numbers[12] = 1
            libc.syscall(202, ctypes.byref(word), 129, 1)
            os.write(writes, b"x")
        else:
            memory[int(line) * 4096] += 1
            print(line, end="", flush=True)

threading.Thread(target=obey, daemon=True).start()
for _ in range(3):
    threading.Thread(target=time.sleep, args=(3600,), daemon=True).start()
print(memory.ctypes.data, flush=True)
began = time.monotonic()
result = waits[sys.argv[2]]()
code = ctypes.get_errno() if result == -1 else 0
print(result, code, time.monotonic() - began, flush=True)
time.sleep(3600)
"""


@dataclass
class Victim:
    """One that waits: its process, where its memory is and the file of it."""

    process: subprocess.Popen[str]
    wait: str
    address: int
    path: Path

    @property
    def pid(self) -> int:
        """Its pid."""
        return self.process.pid

    @property
    def ranges(self) -> list[tuple[int, int]]:
        """What to attach to."""
        return [(self.address, PAGES * PAGE_BYTES)]

    def attach(self) -> Attached:
        """Attach to all its memory."""
        return attach(self.pid, self.ranges)

    def write(self, *pages: int) -> None:
        """Let its thread write to each of them."""
        for page in pages:
            self._tell(str(page))
            assert self._hear() == str(page)

    def check(self, attached: Attached) -> None:
        """What it writes is what a scan says, and it waits as before."""
        with WrittenScan(self.pid, self.address, PAGES) as scan:
            scan.scan()
            assert scan.scan().tolist() == []
            self.write(3, 17, 63)
            assert scan.scan().tolist() == [3, 17, 63]
        assert attached.fd >= 0
        self.wait_until_it_waits()

    def is_registered(self) -> bool:
        """Whether a scan is possible."""
        with WrittenScan(self.pid, self.address, PAGES) as scan:
            try:
                scan.scan()
            except PermissionError:
                return False
            return True

    def wait_until_it_waits(self) -> None:
        """Its main thread is where it should be, with no signal blocked."""
        wait_until(lambda: self._number() in (NUMBERS[self.wait], RESTARTED))
        assert "SigBlk:\t0000000000000000\n" in Path(f"/proc/{self.pid}/status").read_text()

    def end(self) -> tuple[int, int, float]:
        """Let its wait end, if it does not by itself: result, errno and seconds."""
        if self.wait not in LIMITED:
            self._tell("go")
        result, code, lasted_s = self._hear().split()
        return int(result), int(code), float(lasted_s)

    def userfaultfds(self) -> int:
        """How many it has open."""
        count = 0
        for fd in Path(f"/proc/{self.pid}/fd").iterdir():
            with suppress(FileNotFoundError):  # a helper had it closed meanwhile
                count += os.readlink(fd) == "anon_inode:[userfaultfd]"  # noqa: PTH115
        return count

    def _number(self) -> int | None:
        """Of its system call; None where it computes."""
        number = Path(f"/proc/{self.pid}/syscall").read_text().split()[0]
        return None if number == "running" else int(number)

    def _tell(self, line: str) -> None:
        assert self.process.stdin
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def _hear(self) -> str:
        assert self.process.stdout
        return self.process.stdout.readline().strip()


@contextmanager
def victim(folder: Path, wait: str) -> Iterator[Victim]:
    """One that waits like that."""
    path = folder / "memory"
    path.write_bytes(np.arange(PAGES * PAGE_BYTES, dtype=np.uint64).astype(np.uint8).tobytes())
    with python(_BODY, str(path), wait) as (process, address):
        found = Victim(process, wait, int(address), path)
        found.wait_until_it_waits()
        yield found


def threads_state(pid: int) -> set[str]:
    """The state letters of its threads."""
    stats = Path(f"/proc/{pid}/task").glob("*/stat")
    return {stat.read_text().rpartition(")")[2].split()[0] for stat in stats}


@contextmanager
def command(code: str, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """Python that runs `code`, killed in the end."""
    with subprocess.Popen(
        [sys.executable, "-c", code, *arguments], cwd=ROOT, stdout=subprocess.PIPE
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def kill_helper_before(step: int, pid: int) -> bool:
    """Kill a helper that attaches to `pid`; False where it had no such step any more."""
    with command(KILLED_BEFORE, str(pid), str(step)) as helper:
        code = helper.wait()
    assert code in (0, -signal.SIGKILL)
    return code != 0
