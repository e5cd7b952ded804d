"""A thread that was held in the middle of a restartable sequence."""

import os
import signal

import pytest

from pipeline.injection.attach import attach
from tests.pipeline.guests.helpers import python, wait_until
from tests.pipeline.injection.victims import needs_uffd

pytestmark = needs_uffd

LOOPS = """
import ctypes, mmap, struct, sys, threading
import numpy as np
libc = ctypes.CDLL(None)
try:
    offset = ctypes.c_ssize_t.in_dll(libc, "__rseq_offset").value
    size = ctypes.c_uint.in_dll(libc, "__rseq_size").value
except ValueError:
    size = 0
if not size:
    print("none", flush=True)
    sys.exit()
libc.pthread_self.restype = ctypes.c_void_p
area = libc.pthread_self() + offset
# again: area->section = section; start: do count[0]++; while (!count[2]); end: return;
# signature; otherwise: count[1]++; goto again
CODE = bytes.fromhex("48897708 48ff02 48837a1000 74f6 c3 53300553 48ff4208 ebe7")
code = mmap.mmap(-1, 4096, prot=7)
code.write(CODE)
start = np.frombuffer(code, np.uint8).ctypes.data
section = ctypes.create_string_buffer(64)
aligned = (ctypes.addressof(section) + 31) & -32
ctypes.memmove(aligned, struct.pack("<IIQQQ", 0, 0, start + 4, 10, start + 19), 32)
count = np.zeros(3, np.uint64)
memory = np.frombuffer(mmap.mmap(-1, 4096), np.uint8)

def tell():
    for line in sys.stdin:
        print(count[1], flush=True)

threading.Thread(target=tell, daemon=True).start()
print(memory.ctypes.data, flush=True)
ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 3)(start)(area, aligned, count.ctypes.data)
"""


def test_its_sequence_starts_anew() -> None:
    """One that goes on in the middle, and that the kernel does not look after any more."""
    with python(LOOPS) as (process, said):
        if said == "none\n":
            pytest.skip("no restartable sequences here")

        def restarts() -> int:
            assert process.stdin
            assert process.stdout
            process.stdin.write("\n")
            process.stdin.flush()
            return int(process.stdout.readline())

        def is_looked_after() -> bool:
            before = restarts()
            os.kill(process.pid, signal.SIGSTOP)
            os.kill(process.pid, signal.SIGCONT)
            return restarts() > before

        wait_until(is_looked_after)
        for _ in range(5):
            attach(process.pid, [(int(said), 4096)]).close()
            wait_until(is_looked_after)
