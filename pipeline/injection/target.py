"""Whether system calls can be made in a process, and the code in it that makes them.

Looks only, by /proc. Writes no code: every C library has the two pieces that it takes.
"""

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

SYSCALL = bytes.fromhex("0f05 c3")
"""syscall; ret"""
RESTORER = bytes.fromhex("48c7c00f000000 0f05")
"""mov $15, %rax; syscall: what handlers of signals return to."""

_ELF_64_X86_64 = (b"\x7fELF\x02\x01", b"\x3e\x00")
_EXECUTABLE = re.compile(r"^(\w+)-(\w+) r-xp \S+ \S+ \S+ +(\[vdso\]|/(?!memfd:).*)$", re.MULTILINE)
"""Code that came from a file; what a compiler at run time made may be gone in a moment."""
_SCOPE = Path("/proc/sys/kernel/yama/ptrace_scope")


@dataclass(frozen=True)
class Code:
    """Addresses in the target: of SYSCALL and of RESTORER."""

    syscall: int
    restorer: int


class NotPossible(Exception):
    """Why nothing can be done in this process, in words that follow its name."""


def inspect(pid: int, *, sandboxed: bool) -> Code:
    """Where the code is; NotPossible where the process is none that we can make calls in.

    `sandboxed`: the caller knows that its filter of system calls lets ours through or refuses
    them, and does not end the process.
    """
    try:
        _check_machine(pid)
        _check_state(_status(pid), sandboxed=sandboxed)
        return _find_code(pid)
    except (FileNotFoundError, ProcessLookupError):
        raise NotPossible("is gone") from None
    except PermissionError:
        raise forbidden() from None


def forbidden() -> NotPossible:
    """That we may not trace it, and what to look at."""
    why = "it takes its user, or CAP_SYS_PTRACE"
    with suppress(OSError):
        why += f"; kernel.yama.ptrace_scope is {_SCOPE.read_text().strip()}"
    return NotPossible(f"may not be traced by us: {why}")


def _check_machine(pid: int) -> None:
    with Path(f"/proc/{pid}/exe").open("rb") as program:
        head = program.read(20)
    if (head[:6], head[18:20]) != _ELF_64_X86_64:
        raise NotPossible("runs a program that is not for x86_64")


def _check_state(status: dict[str, str], *, sandboxed: bool) -> None:
    if status["State"].startswith(("Z", "X")):
        raise NotPossible("has no main thread any more")
    if status["TracerPid"] != "0":
        raise NotPossible(f"is being traced by process {status['TracerPid']}")
    if status.get("Seccomp", "0") != "0" and not sandboxed:
        raise NotPossible("filters its system calls: a call of ours might end it")
    if "shstk" in status.get("x86_Thread_features", ""):
        raise NotPossible("has a shadow stack")


def _status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text(errors="replace").splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def _find_code(pid: int) -> Code:
    found: dict[bytes, int] = {}
    for start, text in _texts(pid):
        for wanted in (SYSCALL, RESTORER):
            if wanted not in found and (offset := text.find(wanted)) >= 0:
                found[wanted] = start + offset
        if len(found) == 2:
            return Code(found[SYSCALL], found[RESTORER])
    raise NotPossible("has no code that makes a system call and returns")


def _texts(pid: int) -> Iterator[tuple[int, bytes]]:
    """Address and bytes of its code, the C library's first."""
    found = _EXECUTABLE.findall(Path(f"/proc/{pid}/maps").read_text(errors="replace"))
    found.sort(key=lambda text: "libc" not in text[2])
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for first, end, _ in found:
            start = int(first, 16)
            memory.seek(start)
            yield start, memory.read(int(end, 16) - start)
