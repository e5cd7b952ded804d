"""A thread of another process that is stopped for a moment to make system calls for us.

Invariant: whenever the tracer dies, the thread goes on as before. Its registers change in one
request at a time, and each of those states leads back by the parachute on its stack; signals
are blocked before it runs, and the parachute gives the mask back.
"""

import ctypes
import os
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Self

from pipeline.injection import parachute, ptrace
from pipeline.injection.ptrace import Registers, SyscallInfo, Vector, request
from pipeline.injection.rseq import where_it_goes_on
from pipeline.injection.target import RESTORER, SYSCALL, Code, NotPossible, forbidden

STOP_S = 2.0
_CALL_S = 2.0
_NO_SYSCALL = (1 << 64) - 1
"""As orig_rax: the kernel has nothing to restart when the thread goes on."""
_CODE_64 = 0x33
_ARGUMENTS = ("rdi", "rsi", "rdx", "r10", "r8", "r9")
_XSAVE_ROOM_BYTES = 16384
"""AMX takes 11,008."""


class StoppedThread:
    """The main thread of `pid`, stopped from `with` on; owned by a process with signals blocked.

    NotPossible where it cannot be had: then nothing has changed. `held_ms`: how long it stood.
    """

    def __init__(self, pid: int, code: Code) -> None:
        self._pid, self._code = pid, code
        self._registers = self._used = Registers()
        self._mask = ctypes.create_string_buffer(ptrace.MASK_BYTES)
        self._all_signals = ctypes.create_string_buffer(b"\xff" * 8, ptrace.MASK_BYTES)
        self._xsave = ctypes.create_string_buffer(_XSAVE_ROOM_BYTES)
        self._info = SyscallInfo()
        self._base = 0
        self._before = b""
        self._is_changed = self._is_lost = False
        self.held_ms = 0.0

    def __enter__(self) -> Self:
        self._seize()
        self._began = time.perf_counter()
        self._ask(ptrace.INTERRUPT)
        self._wait_for_event(STOP_S, f"did not stop within {STOP_S:g} s")
        try:
            self._prepare()
        except BaseException:
            self._ask(ptrace.DETACH)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_lost:
            return  # our end lets go of it
        if self._is_changed:
            self._restore()
        self._ask(ptrace.DETACH)
        self.held_ms = 1000 * (time.perf_counter() - self._began)

    def call(self, number: int, *arguments: int) -> int:
        """What the system call returns there: a negative errno where it fails."""
        self._used.rax, self._used.rip = number, self._code.syscall
        for name, value in zip(_ARGUMENTS, arguments, strict=False):
            setattr(self._used, name, value)
        self._ask(ptrace.SETREGS, 0, ctypes.byref(self._used))
        if not self._is_changed:
            self._is_changed = True
            self._ask(ptrace.SETSIGMASK, ptrace.MASK_BYTES, self._all_signals)
        return self._run_until_it_returned()

    def _seize(self) -> None:
        try:
            request(ptrace.SEIZE, self._pid, 0, ptrace.TRACE_SYS_GOOD)
        except ProcessLookupError:
            raise NotPossible("is gone") from None
        except PermissionError:
            raise forbidden() from None

    def _prepare(self) -> None:
        """Learn all that is to be put back, and lay the parachute out."""
        self._ask(ptrace.GETREGS, 0, ctypes.byref(self._registers))
        if self._registers.cs != _CODE_64:
            raise NotPossible("runs 32-bit code")
        if self._registers.orig_rax == _NO_SYSCALL:
            self._registers.rip = where_it_goes_on(self._pid, self._registers)
        self._ask(ptrace.GETSIGMASK, ptrace.MASK_BYTES, self._mask)
        state = Vector(ctypes.addressof(self._xsave), _XSAVE_ROOM_BYTES)
        self._ask(ptrace.GETREGSET, ptrace.XSTATE, ctypes.byref(state))
        extended = self._xsave.raw[: state.length]
        length = parachute.length_for(extended)
        self._base = parachute.place(self._registers.rsp, length)
        self._look(length)
        packed = parachute.pack(
            self._base, self._code.restorer, self._registers, self._mask.raw, extended
        )
        self._write(packed)
        self._used = Registers.from_buffer_copy(self._registers)
        self._used.orig_rax, self._used.rsp = _NO_SYSCALL, self._base

    def _look(self, length: int) -> None:
        """Keep what is where the parachute goes; the code has to be where it was."""
        code = (self._code.syscall, len(SYSCALL)), (self._code.restorer, len(RESTORER))
        try:
            found = ptrace.read_memory(self._pid, [*code, (self._base, length)])
        except OSError:
            found = b""
        if not found.startswith(SYSCALL + RESTORER):
            raise NotPossible("has become another program")
        self._before = found[len(SYSCALL + RESTORER) :]
        if len(self._before) != length:
            raise NotPossible("has no room on its stack")

    def _write(self, data: bytes) -> None:
        try:
            written = ptrace.write_memory(self._pid, self._base, data)
        except OSError:
            written = 0
        if written != len(data):
            raise NotPossible("has no room on its stack")

    def _run_until_it_returned(self) -> int:
        number = 0
        while True:
            self._ask(ptrace.SYSCALL, 0, number)
            status = self._wait(_CALL_S, "did not come back from a system call")
            number = 0
            if os.WSTOPSIG(status) == ptrace.SYSCALL_STOP:
                size = ctypes.sizeof(self._info)
                self._ask(ptrace.GET_SYSCALL_INFO, size, ctypes.byref(self._info))
                if self._info.op == ptrace.SYSCALL_EXIT:
                    return int(self._info.value)
            elif status >> 16 != ptrace.EVENT_STOP:  # SIGSTOP, which cannot be blocked
                number = os.WSTOPSIG(status)

    def _restore(self) -> None:
        """Put it back to where it was, in a stop from which the kernel restarts system calls.

        The stack last: as long as the registers are ours, the parachute has to be there.
        """
        self._ask(ptrace.INTERRUPT)
        self._ask(ptrace.CONT)
        self._wait_for_event(_CALL_S, "did not stop again")
        self._ask(ptrace.SETSIGMASK, ptrace.MASK_BYTES, self._mask)
        self._ask(ptrace.SETREGS, 0, ctypes.byref(self._registers))
        with suppress(OSError):
            ptrace.write_memory(self._pid, self._base, self._before)

    def _wait_for_event(self, limit_s: float, otherwise: str) -> None:
        while (status := self._wait(limit_s, otherwise)) >> 16 != ptrace.EVENT_STOP:
            self._ask(ptrace.CONT, 0, _signal_of(status))

    def _wait(self, limit_s: float, otherwise: str) -> int:
        return self._unless_gone(lambda: ptrace.wait_for_stop(self._pid, limit_s), otherwise)

    def _ask(self, number: int, address: int = 0, data: object = 0) -> None:
        self._unless_gone(lambda: request(number, self._pid, address, data), "")

    def _unless_gone(self, does: Callable[[], int], otherwise: str) -> int:
        try:
            return does()
        except (ProcessLookupError, ChildProcessError, TimeoutError) as error:
            self._is_lost = True
            why = otherwise if isinstance(error, TimeoutError) else "is gone"
            raise NotPossible(why) from None


def _signal_of(status: int) -> int:
    """What to let the thread go on with: the signal that it was stopped by, if it was one."""
    number = os.WSTOPSIG(status)
    return 0 if number == ptrace.SYSCALL_STOP else number
