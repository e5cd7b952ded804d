"""The tracer's system calls: layouts and numbers of ptrace on x86_64, reading another's memory.

Knows nothing of what is made of them. Every change of another process goes through `request`
or `write_memory`.
"""

import ctypes
import os
import signal
import time
from collections.abc import Sequence
from typing import Any, ClassVar

CONT, GETREGS, SETREGS, DETACH, SYSCALL = 7, 12, 13, 17, 24
GETREGSET, SEIZE, INTERRUPT = 0x4204, 0x4206, 0x4207
GETSIGMASK, SETSIGMASK, GET_SYSCALL_INFO = 0x420A, 0x420B, 0x420E

TRACE_SYS_GOOD = 1
"""Marks stops at system calls by 0x80, a number that is no signal: with a plain SIGTRAP the kernel
would deliver that to the traced process when its tracer dies."""
SYSCALL_STOP = signal.SIGTRAP | 0x80
EVENT_STOP = 128
SYSCALL_EXIT = 2
XSTATE = 0x202
MASK_BYTES = 8
_ALL_CHILDREN = 0x40000000
_PIDFD_GETFD = 438

_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_LIBC.ptrace.restype = ctypes.c_long
_LIBC.syscall.restype = ctypes.c_long
_VECTOR: list[Any] = [
    ctypes.c_int,
    ctypes.c_void_p,
    ctypes.c_ulong,
    ctypes.c_void_p,
    ctypes.c_ulong,
]
_LIBC.process_vm_readv.argtypes = _LIBC.process_vm_writev.argtypes = [*_VECTOR, ctypes.c_ulong]
_LIBC.process_vm_readv.restype = _LIBC.process_vm_writev.restype = ctypes.c_ssize_t

_Fields = list[tuple[str, Any]]


class Registers(ctypes.Structure):
    """The kernel's user_regs_struct."""

    _fields_: ClassVar[_Fields] = [
        (name, ctypes.c_uint64)
        for name in (
            "r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8", "rax", "rcx", "rdx",
            "rsi", "rdi", "orig_rax", "rip", "cs", "eflags", "rsp", "ss", "fs_base", "gs_base",
            "ds", "es", "fs", "gs",
        )
    ]  # fmt: skip


class SyscallInfo(ctypes.Structure):
    """The kernel's ptrace_syscall_info, as it is where a system call has returned `value`."""

    _fields_: ClassVar[_Fields] = [
        ("op", ctypes.c_uint8), ("flags", ctypes.c_uint8 * 3), ("arch", ctypes.c_uint32),
        ("ip", ctypes.c_uint64), ("sp", ctypes.c_uint64), ("value", ctypes.c_int64),
        ("rest", ctypes.c_uint8 * 48),
    ]  # fmt: skip


class Vector(ctypes.Structure):
    """The kernel's iovec."""

    _fields_: ClassVar[_Fields] = [("base", ctypes.c_uint64), ("length", ctypes.c_uint64)]


def request(number: int, pid: int, address: int, data: object) -> int:
    """One ptrace request; OSError where the kernel refuses."""
    return _checked(_LIBC.ptrace(number, pid, address, data))


def read_memory(pid: int, pieces: Sequence[tuple[int, int]]) -> bytes:
    """The bytes at each (address, length) of `pid`, one behind the other; OSError where none is."""
    buffer = ctypes.create_string_buffer(sum(length for _, length in pieces))
    theirs = (Vector * len(pieces))(*(Vector(*piece) for piece in pieces))
    ours = Vector(ctypes.addressof(buffer), len(buffer))
    arguments = (ctypes.byref(ours), 1, theirs, len(pieces), 0)
    length = _checked(_LIBC.process_vm_readv(pid, *arguments))
    return buffer.raw[:length]


def write_memory(pid: int, address: int, data: bytes) -> int:
    """Put `data` at `address` of `pid`: how many bytes could be; OSError where none."""
    buffer = ctypes.create_string_buffer(data, len(data))
    ours = Vector(ctypes.addressof(buffer), len(data))
    theirs = Vector(address, len(data))
    arguments = (ctypes.byref(ours), 1, ctypes.byref(theirs), 1, 0)
    return _checked(_LIBC.process_vm_writev(pid, *arguments))


def take_descriptor(pidfd: int, fd: int) -> int:
    """A descriptor of ours for what the process of `pidfd` has open as `fd`."""
    return _checked(_LIBC.syscall(_PIDFD_GETFD, pidfd, fd, 0))


def wait_for_stop(pid: int, limit_s: float) -> int:
    """The wait status of the traced `pid` when it stops next.

    The caller has SIGCHLD blocked. TimeoutError after `limit_s`, ProcessLookupError when it ended.
    """
    until = time.monotonic() + limit_s
    while True:
        found, status = os.waitpid(pid, os.WNOHANG | _ALL_CHILDREN)
        if found:
            if os.WIFSTOPPED(status):
                return status
            raise ProcessLookupError
        left = until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        signal.sigtimedwait({signal.SIGCHLD}, left)


def _checked(result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result
