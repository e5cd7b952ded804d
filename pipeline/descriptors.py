"""The descriptors that the command was started with: what it opens itself is nobody's to name."""

import os
from contextlib import suppress

_inherited: set[int] | None = None


def note_inherited() -> None:
    """Those that are open now, before anything else is."""
    global _inherited
    _inherited = set()
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - imports nothing more
        with suppress(OSError):  # the one that lists them
            os.fstat(int(name))
            _inherited.add(int(name))


def is_inherited(number: int) -> bool:
    """Whether descriptor `number` was open then; in a process that never asked any may be."""
    return _inherited is None or number in _inherited
