"""What a stopped thread needs to find its own way back: a signal frame with all its registers.

Pure. Invariant: a thread whose stack pointer is at the start of what `pack` made, and that
executes `ret`, goes on as it was before it was stopped, without anybody's help.
"""

import struct

from pipeline.injection.ptrace import Registers

RED_ZONE_BYTES = 128
_GENERAL = (
    "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "rdi", "rsi", "rbp", "rbx", "rdx",
    "rax", "rcx", "rsp", "rip", "eflags",
)  # fmt: skip
"""The order in which the kernel's sigcontext has them."""
_CONTEXT = struct.Struct("<2Q QiiQ 18Q 4H 4Q Q 8Q Q")
"""ucontext: flags and link; the alternate stack; sigcontext; the signal mask."""
_RETURN_BYTES = 8
_FLAGS = 0x7
"""Extended state follows; the stack segment is that of the frame, to the letter."""
_LEAVE_ALTERNATE_STACK = 0x7
"""No mode of an alternate stack: the kernel ignores it and keeps the one that there is."""

_XSAVE_ALIGNMENT = 64
_SOFTWARE_BYTES = slice(464, 512)
_IN_USE = slice(512, 520)
_MAGIC_1, _MAGIC_2 = 0x46505853, 0x46505845
_BEFORE_TILES_BYTES = 2696
"""Where AMX begins, the part that a thread has only when it has asked for it."""
_TILES = 3 << 17

_INTERRUPTED = {-512, -513, -514}
"""ERESTARTSYS, ERESTARTNOINTR, ERESTARTNOHAND: the call is made once more."""
_RESTART_BLOCK = -516
"""ERESTART_RESTARTBLOCK: the kernel knows how to go on with the wait, but not behind a frame: there
it ends with EINTR, as it does by a signal."""
_EINTR = -4
_SYSCALL_BYTES = 2
_MASK_64 = (1 << 64) - 1


def place(stack_pointer: int, length: int) -> int:
    """Where `length` bytes have room that nobody counts on: aligned, below the red zone."""
    return (stack_pointer - RED_ZONE_BYTES - length) & -_XSAVE_ALIGNMENT


def length_for(extended: bytes) -> int:
    """How many bytes `pack` makes at most."""
    return _extended_offset() + len(extended) + len(struct.pack("<I", _MAGIC_2))


def pack(start: int, restorer: int, registers: Registers, mask: bytes, extended: bytes) -> bytes:
    """The bytes for address `start`, where a thread finds its way back.

    `restorer` is the address of code that calls rt_sigreturn, `mask` the 8 bytes of the signal
    mask, `extended` the XSAVE area.
    """
    values = going_on(registers)
    context = _CONTEXT.pack(
        _FLAGS, 0, 0, _LEAVE_ALTERNATE_STACK, 0, 0, *(values[name] for name in _GENERAL),
        registers.cs, 0, 0, registers.ss, 0, 0, 0, 0, start + _extended_offset(), *[0] * 8,
        int.from_bytes(mask, "little"),
    )  # fmt: skip
    head = restorer.to_bytes(_RETURN_BYTES, "little") + context
    return head.ljust(_extended_offset(), b"\0") + _framed(extended)


def going_on(registers: Registers) -> dict[str, int]:
    """The registers with which it goes on in user mode, where it was within a system call, too.

    What the kernel does on its way back from a stop, which it does not do behind a frame.
    """
    values = {name: getattr(registers, name) for name in _GENERAL}
    result = registers.rax - (1 << 64) if registers.rax >> 63 else registers.rax
    if registers.orig_rax == _MASK_64:
        return values
    if result in _INTERRUPTED:
        values |= {"rax": registers.orig_rax, "rip": registers.rip - _SYSCALL_BYTES}
    elif result == _RESTART_BLOCK:
        values["rax"] = _EINTR & _MASK_64
    return values


def _extended_offset() -> int:
    return -(-(_RETURN_BYTES + _CONTEXT.size) // _XSAVE_ALIGNMENT) * _XSAVE_ALIGNMENT


def _framed(extended: bytes) -> bytes:
    """The XSAVE area with the marks by which the kernel knows that it is whole."""
    features = int.from_bytes(extended[_SOFTWARE_BYTES][:8], "little")
    if not int.from_bytes(extended[_IN_USE], "little") & _TILES:
        extended, features = extended[:_BEFORE_TILES_BYTES], features & ~_TILES
    size = len(extended)
    software = struct.pack("<IIQI28x", _MAGIC_1, size + 4, features, size)
    start, end = _SOFTWARE_BYTES.start, _SOFTWARE_BYTES.stop
    return extended[:start] + software + extended[end:] + struct.pack("<I", _MAGIC_2)
