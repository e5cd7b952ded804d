"""Restartable sequences: code that starts anew where it was interrupted on the way.

The kernel sees to that where a thread goes on; one whose registers were others meanwhile it would
let go on in the middle.
"""

import ctypes
import struct
from typing import Any, ClassVar

from pipeline.injection import ptrace
from pipeline.injection.ptrace import Registers

_GET_CONFIGURATION = 0x420F
_SECTION_OFFSET = 8
_SECTION = struct.Struct("<IIQQQ")
"""The kernel's rseq_cs: version, flags, start, length, where it goes on after an interruption."""


class _Configuration(ctypes.Structure):
    _fields_: ClassVar[list[tuple[str, Any]]] = [
        ("area", ctypes.c_uint64), ("size", ctypes.c_uint32), ("signature", ctypes.c_uint32),
        ("flags", ctypes.c_uint32), ("padding", ctypes.c_uint32),
    ]  # fmt: skip


def where_it_goes_on(pid: int, registers: Registers) -> int:
    """The address at which the stopped thread `pid`, interrupted in user mode, has to go on."""
    here = int(registers.rip)
    try:
        section = _section(pid)
    except OSError:  # a kernel without them; what is nowhere is no section either
        return here
    if section is None:
        return here
    _, _, start, length, otherwise = section
    return otherwise if 0 <= here - start < length else here


def _section(pid: int) -> tuple[int, ...] | None:
    found = _Configuration()
    ptrace.request(_GET_CONFIGURATION, pid, ctypes.sizeof(found), ctypes.byref(found))
    if not found.area:
        return None
    pointer = ptrace.read_memory(pid, [(found.area + _SECTION_OFFSET, 8)])
    address = int.from_bytes(pointer, "little")
    return _SECTION.unpack(ptrace.read_memory(pid, [(address, _SECTION.size)])) if address else None
